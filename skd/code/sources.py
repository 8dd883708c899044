"""Which code makes a record: the digest of its sources, and its commit. Imports no torch."""

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
# Git's other variables would have it answer for another repository, as in a hook, or otherwise.
GIT_KEPT = ("GIT_CONFIG", "GIT_EXEC_PATH")


def source_files(root: Path = ROOT) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the sources that train, in a fixed order.

    These are all Python and YAML files of ``skd`` and ``baselines``, but for the tables of kernels,
    which `skd tune-kernels` writes: a run's execution names the one it uses.

    Args:
        root: the folder that holds the packages; paths are relative to it, with ``/``.
    """
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            # What is no file is an editor's dangling lock.
            if path.suffix in SUFFIXES and not name.startswith(KERNEL_TABLES) and path.is_file():
                yield name, path.read_bytes()


def sources_id(root: Path = ROOT) -> str:
    """Return the head of a digest of the sources: the same in every folder and without git.

    It is what ``sha256sum`` says of its own list of these files, sorted by name as in the C locale:
    docs/provenance.md has the command.
    """
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in sorted(source_files(root))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:DIGEST_LENGTH]


def code_version(root: Path = ROOT) -> dict[str, Any]:
    """Return which code this is, as a record's environment has it.

    ``git_commit`` and ``git_clean`` are none where there is no git, and where ``root`` lies inside
    another project's repository, whose commit says nothing about this code.
    """
    commit, clean = _commit(root)
    return {"git_commit": commit, "git_clean": clean, "sources": sources_id(root)}


def subprocess_environment() -> dict[str, str]:
    """Return an environment in which `python -m skd` runs this code.

    By itself Python prefers what the working directory has, such as another clone.
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
    known = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(GIT_KEPT) or not name.startswith("GIT_")
    }
    # git refuses another user's clone, for it may run what its settings name; its code runs anyway.
    command = ["git", "-c", f"safe.directory={root.resolve()}", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=known,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
