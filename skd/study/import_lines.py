"""The lines of a study sheet that use a checkpoint as a teacher. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from skd.study.sheet import ImportSource
from skd.study.sheet_files import StudyError


def check_sheet_path(path: Path) -> None:
    """Check that a sheet can name a path.

    Raises:
        StudyError: a sheet would expand a variable in the path, or the path is not UTF-8 text.
    """
    text = str(path)
    if os.path.expandvars(text) != text:
        raise StudyError(
            f"{path}: a sheet would expand the variable after '$' in this path; rename the file"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StudyError(
            f"{os.fsencode(path)!r}: the path is not UTF-8 text, as a sheet is; rename the file"
        ) from None


def teacher_sheet_lines(network: str, source: ImportSource) -> str:
    """Return the ``teachers:`` of a sheet with one imported teacher, named after its network."""
    settings = source.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(
        {"teachers": {network: {"import": settings}}},
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
