"""The files of study sheets: where they are found, and what they extend. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skd.common.errors import SkdError, suggest
from skd.common.files import path_from_environment
from skd.common.names import validate_name
from skd.common.project import ROOT
from skd.common.yaml_files import YamlError, read_yaml

STUDIES_FOLDER = ROOT / "workflow" / "studies"
SHEET_SUFFIXES = (".yaml", ".yml")
RESERVED_NAMES = ("runs", "teachers", "reference")


class StudyError(SkdError, ValueError):
    """A sheet cannot be read or resolved. The message names the place and what is allowed."""


def study_folders() -> list[Path]:
    """Return where sheets are looked for: ``$SKD_STUDIES``, then the shipped ones."""
    own = path_from_environment("SKD_STUDIES")
    return [own, STUDIES_FOLDER] if own else [STUDIES_FOLDER]


def study_names() -> list[str]:
    """Return the names of all sheets that can be found, also of those that cannot be read."""
    paths = (path for folder in study_folders() for path in folder.glob("*.yaml"))
    return sorted({path.stem for path in paths if path.is_file()})


def find_sheet(name: str) -> Path:
    """Return the path of a sheet, given its name or its path. Its results have its name.

    Raises:
        StudyError: there is none.
    """
    if name.endswith(SHEET_SUFFIXES):
        if os.path.isfile(name):  # noqa: PTH113  no error for a path that none can have
            return _usable(Path(name))
        raise StudyError(f"no such study sheet: {name}")
    if found := _named(name, study_folders()):
        return _usable(found[0])
    raise StudyError(f"unknown study '{name}'{suggest(name, study_names())}")


def _named(name: str, folders: list[Path]) -> list[Path]:
    """Return the files that hold a study of this name."""
    paths = [folder / f"{name}.yaml" for folder in folders]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113  as in `find_sheet`


def _usable(path: Path) -> Path:
    if path.stem in RESERVED_NAMES:
        raise StudyError(f"no study can be named {path.stem}: results/{path.stem} is the store's")
    try:
        validate_name(path.stem)
    except ValueError as error:
        raise StudyError(f"the study's name, {error}") from error
    return path


def sheet_files(path: Path) -> list[Path]:
    """Return a sheet's file, and those it extends: what each says replaces what the next one says.

    Raises:
        StudyError: a file cannot be read or found, or one extends itself.
    """
    files = [path]
    while True:
        base = read_sheet_file(files[-1]).get("extends")
        if base is None:
            return files
        if not isinstance(base, str):
            raise StudyError(f"{files[-1].name}: extends: a study's name, got {base!r}")
        found = _named(base, [files[-1].parent, *study_folders()])
        if not found:
            raise StudyError(
                f"{files[-1].name}: extends: unknown study '{base}'{suggest(base, study_names())}"
            )
        # One's own sheet may extend the shipped one of its name.
        new = [own for own in found if own.resolve() not in [file.resolve() for file in files]]
        if not new:
            raise StudyError(f"{path.name}: extends itself, by way of {found[0].name}")
        files.append(new[0])


def sheet_text(path: Path) -> str:
    """Return a sheet as written, followed by those it extends."""
    first, *bases = sheet_files(path)
    parts = [f"\n# {base.name}, which this extends:\n{_text(base)}" for base in bases]
    return "".join([_text(first), *parts])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def read_sheet_file(path: Path) -> dict[str, Any]:
    """Return what one file says, by key; what it extends is not looked at.

    Raises:
        StudyError: the file cannot be read (`skd.common.yaml_files`), or is no mapping.
    """
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise StudyError(f"{path.name}: {error}") from error
    if not isinstance(data, dict):
        raise StudyError(f"{path.name}: a sheet is a mapping of keys, such as 'title: …'")
    return data
