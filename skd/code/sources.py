"""The version of this code, for records: the digest of its sources, and its commit. No torch."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skd.code.digests import DIGEST_LENGTH
from skd.common.project import PACKAGES, ROOT

SUFFIXES = (".py", ".yaml")
KERNEL_TABLES = "skd/kernels/tables/"
# Prefixes of the git variables to keep. Others, as set in a hook, may select another repository.
GIT_KEPT = ("GIT_CONFIG", "GIT_EXEC_PATH")


def source_files(root: Path = ROOT) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the project's source files, in a fixed order.

    These are all Python and YAML files of ``skd`` and ``baselines``, except for the kernel tables
    that `skd tune-kernels` writes: a run's execution names the table that it uses.

    Args:
        root: the folder that contains the packages; paths are relative to it, with ``/``.
    """
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            # `is_file` excludes the dangling links that editors use as locks.
            if path.suffix in SUFFIXES and not name.startswith(KERNEL_TABLES) and path.is_file():
                yield name, path.read_bytes()


def sources_id(root: Path = ROOT) -> str:
    """Return the first digits of a digest of the sources, which needs no git.

    It is the ``sha256sum`` of the output of ``sha256sum`` for these files, sorted by name in the C
    locale: docs/provenance.md has the command.
    """
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in sorted(source_files(root))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:DIGEST_LENGTH]


def code_version(root: Path = ROOT) -> dict[str, Any]:
    """Return the version of this code, as in a record's environment.

    ``git_commit`` and ``git_clean`` are ``None`` without git, and if ``root`` is inside the
    repository of another project, whose commit does not identify this code.
    """
    commit, clean = _commit(root)
    return {"git_commit": commit, "git_clean": clean, "sources": sources_id(root)}


def subprocess_environment() -> dict[str, str]:
    """Return an environment in which `python -m skd` runs this code.

    By default Python prefers modules in the working directory, which may be another clone.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the repository whose top level is ``root``, and whether it is clean."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    status = _git(root, "status", "--porcelain", "--untracked-files=normal")
    return commit, None if status is None else status == ""


def _git(root: Path, *arguments: str) -> str | None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(GIT_KEPT) or not name.startswith("GIT_")
    }
    # Git refuses clones of other users because it may run programs that their settings name. This
    # process runs the clone's code already, so the refusal would not protect anything.
    command = ["git", "-c", f"safe.directory={root.resolve()}", *arguments]
    try:
        process = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
