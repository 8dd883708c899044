"""The source files that a run's numbers depend on: what its networks, data, terms and loop import.

The files are found without importing them. What only reads sheets, keeps files or tells is not
followed: it acts on numbers through a run's specification, which is its identity. So is what reads
a teacher's checkpoint, whose weights have a digest of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field

from skd.code.digests import DIGEST_LENGTH, imported_modules, source_digest
from skd.common.frozen import FrozenModel
from skd.common.project import PACKAGES, ROOT

# Modules that are not followed.
NOT_FOLLOWED = (
    "skd",  # its version; the modules in it are others
    "skd.code*",
    "skd.common",
    "skd.common.bounds",
    "skd.common.errors",
    "skd.common.files",
    "skd.common.gpu_state",
    "skd.common.lease",
    "skd.common.names",
    "skd.common.plugins",
    "skd.common.process_identity",
    "skd.common.project",
    "skd.common.system_errors",
    "skd.common.temporary_files",
    "skd.common.terminal",
    "skd.common.validation_messages",
    "skd.common.yaml_files",
    "skd.store",
    "skd.store.record_checks",
    "skd.store.leftovers",
    "skd.store.json_files",
    "skd.store.records",
    "skd.store.store",
    "skd.study",
    "skd.study.limits",
    "skd.study.sheet",
    "skd.study.sheet_files",
    "skd.training.file_kinds",
    "skd.training.state_dicts",
)


class SourceFile(FrozenModel):
    """One source file."""

    digest: str = Field(description="of its syntax tree, without comments and docstrings")
    imports: tuple[str, ...] = Field(description="paths of the project's files that it imports")


def read_source_closure(roots: Iterable[str], folder: Path = ROOT) -> dict[str, SourceFile]:
    """Return some source files and all that they import, by path.

    Args:
        roots: paths of files, relative to ``folder``, with ``/``; one that is gone is left out.
        folder: the folder that holds the packages.
    """
    modules = _modules(folder)
    paths = {path: name for name, path in modules.items()}
    found: dict[str, SourceFile] = {}
    left = [path for path in roots if path in paths]
    while left:
        path = left.pop()
        if path in found:
            continue
        content, name = (folder / path).read_bytes(), paths[path]
        try:
            imported = imported_modules(content, name, path.endswith("__init__.py"), modules)
            digest = source_digest(content)
        except (SyntaxError, ValueError):  # to import it fails too
            imported, digest = set(), hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        imports = sorted(modules[module] for module in imported if not _apart(module))
        found[path] = SourceFile(digest=digest, imports=tuple(imports))
        left += imports
    return found


def closure_digests(roots: Iterable[str], files: Mapping[str, SourceFile]) -> dict[str, str]:
    """Return the digests of some files and of all that they import, by path."""
    found: dict[str, str] = {}
    left = [path for path in roots if path in files]
    while left:
        path = left.pop()
        if path not in found:
            found[path] = files[path].digest
            left += files[path].imports
    return dict(sorted(found.items()))


def _modules(folder: Path) -> dict[str, str]:
    """Return the project's modules: dotted name to path."""
    found = {}
    for package in PACKAGES:
        for path in (folder / package).rglob("*.py"):
            place = path.relative_to(folder)
            parts = place.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if path.is_file():
                found[name] = place.as_posix()
    return found


def _apart(module: str) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in NOT_FOLLOWED)
