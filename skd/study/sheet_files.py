"""The files of study sheets: finding and reading them, with those they extend. No torch."""

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
    """A sheet cannot be read or resolved. The message names the place and the allowed values."""


def study_folders() -> list[Path]:
    """Return the folders that are searched for sheets: ``$SKD_STUDIES``, then the shipped ones."""
    folder = path_from_environment("SKD_STUDIES")
    return [folder, STUDIES_FOLDER] if folder else [STUDIES_FOLDER]


def study_names() -> list[str]:
    """Return the names of all sheets in these folders, including those that cannot be read."""
    paths = (path for folder in study_folders() for path in folder.glob("*.yaml"))
    return sorted({path.stem for path in paths if path.is_file()})


def find_sheet(name: str) -> Path:
    """Return the path of a sheet. The results of a study have the name of its sheet.

    Args:
        name: name or path of the sheet.

    Raises:
        StudyError: there is no such sheet, or a study cannot have its name.
    """
    if name.endswith(SHEET_SUFFIXES):
        if os.path.isfile(name):  # noqa: PTH113  pathlib raises for some impossible paths
            return _check_name(Path(name))
        raise StudyError(f"no such study sheet: {name}")
    if paths := _sheets_named(name, study_folders()):
        return _check_name(paths[0])
    if not (known := study_names()):
        raise StudyError(no_studies_text())
    raise StudyError(f"unknown study '{name}'{suggest(name, known)}")


def no_studies_text() -> str:
    """Return what to do if no folder has a sheet, as in an installation without a clone."""
    folders = " and ".join(str(folder) for folder in study_folders())
    return (
        f"there is no study sheet in {folders}: set SKD_STUDIES to a folder with sheets, give a "
        "sheet's path (mine.yaml), or work in a clone of the repository, which has studies"
    )


def _sheets_named(name: str, folders: list[Path]) -> list[Path]:
    """Return the sheets with a name in some folders."""
    paths = [folder / f"{name}.yaml" for folder in folders]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113  as in `find_sheet`


def _check_name(path: Path) -> Path:
    if path.stem in RESERVED_NAMES:
        raise StudyError(
            f"a study cannot have the name {path.stem}: the store uses results/{path.stem}; rename "
            "the sheet"
        )
    try:
        validate_name(path.stem)
    except ValueError as error:
        raise StudyError(f"the study's name, {error}") from error
    return path


def sheet_files(path: Path) -> list[Path]:
    """Return a sheet's file, followed by the files that it extends.

    The keys of a file override those of the files after it.

    Raises:
        StudyError: a file cannot be found or read, or extends itself.
    """
    files = [path]
    while True:
        base = read_sheet_file(files[-1]).get("extends")
        if base is None:
            return files
        if not isinstance(base, str):
            raise StudyError(f"{files[-1].name}: extends: a study's name, got {base!r}")
        bases = _sheets_named(base, [files[-1].parent, *study_folders()])
        if not bases:
            raise StudyError(
                f"{files[-1].name}: extends: unknown study '{base}'{suggest(base, study_names())}"
            )
        # A user's sheet may extend the shipped sheet of the same name.
        known = [file.resolve() for file in files]
        new = [file for file in bases if file.resolve() not in known]
        if not new:
            raise StudyError(f"{path.name}: extends itself, by way of {bases[0].name}")
        files.append(new[0])


def sheet_text(path: Path) -> str:
    """Return the text of a sheet, followed by the texts of those it extends."""
    first, *bases = sheet_files(path)
    parts = [f"\n# {base.name}, which this extends:\n{_text(base)}" for base in bases]
    return "".join([_text(first), *parts])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def read_sheet_file(path: Path) -> dict[str, Any]:
    """Return the content of one file, without the files that it extends.

    Raises:
        StudyError: the file cannot be read (`skd.common.yaml_files`), or is not a mapping.
    """
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise StudyError(f"{path.name}: {error}") from error
    if not isinstance(data, dict):
        raise StudyError(f"{path.name}: a sheet is a mapping of keys, such as 'title: …'")
    return data
