"""The source files that a run's numbers depend on: its networks, data, terms, loop, and imports.

The files are found without importing them. Modules that only read sheets, handle files or print are
not followed: they affect numbers only through the run's spec, which is its identity. Modules that
read a teacher's checkpoint are not followed either: the weights have their own digest.
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
    "skd",  # only the package itself, which has the version; modules in it are followed
    "skd.code*",
    "skd.common",
    "skd.common.bounds",
    "skd.common.errors",
    "skd.common.files",
    "skd.common.gpu_state",
    "skd.common.lease",
    "skd.common.names",
    "skd.common.plugins",
    "skd.common.printable",
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
    "skd.study.expansion_files",
    "skd.study.limits",
    "skd.study.sheet",
    "skd.study.sheet_files",
    "skd.training.file_kinds",
    "skd.training.state_dicts",
)


class SourceFile(FrozenModel):
    """One source file."""

    digest: str = Field(description="of the syntax tree, without comments and docstrings")
    imports: tuple[str, ...] = Field(description="paths of the project's files that it imports")


def read_source_closure(roots: Iterable[str], folder: Path = ROOT) -> dict[str, SourceFile]:
    """Return some source files and all files that they import, by path.

    Args:
        roots: paths of files, relative to ``folder``, with ``/``; missing files are skipped.
        folder: the folder that contains the packages.
    """
    modules = _modules(folder)
    names = {path: name for name, path in modules.items()}
    files: dict[str, SourceFile] = {}
    pending = [path for path in roots if path in names]
    while pending:
        path = pending.pop()
        if path in files:
            continue
        content, name = (folder / path).read_bytes(), names[path]
        try:
            imported = imported_modules(content, name, path.endswith("__init__.py"), modules)
            digest = source_digest(content)
        except (SyntaxError, ValueError):  # the file cannot be imported either
            imported, digest = set(), hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        imports = sorted(modules[module] for module in imported if _is_followed(module))
        files[path] = SourceFile(digest=digest, imports=tuple(imports))
        pending += imports
    return files


def closure_digests(roots: Iterable[str], files: Mapping[str, SourceFile]) -> dict[str, str]:
    """Return the digests of some files and of all files that they import, by path.

    Args:
        roots: paths of files; those that are not in ``files`` are skipped.
        files: the files by path, as `read_source_closure` returns them.
    """
    digests: dict[str, str] = {}
    pending = [path for path in roots if path in files]
    while pending:
        path = pending.pop()
        if path not in digests:
            digests[path] = files[path].digest
            pending += files[path].imports
    return dict(sorted(digests.items()))


def _modules(folder: Path) -> dict[str, str]:
    """Return the paths of the project's modules by dotted name."""
    modules = {}
    for package in PACKAGES:
        for path in (folder / package).rglob("*.py"):
            relative = path.relative_to(folder)
            parts = relative.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if path.is_file():
                modules[name] = relative.as_posix()
    return modules


def _is_followed(module: str) -> bool:
    return not any(fnmatchcase(module, pattern) for pattern in NOT_FOLLOWED)
