"""The lines of a study sheet that use a checkpoint as a teacher. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from skd.study.sheet import ImportSource, StudyError


def check_sheet_path(path: Path) -> None:
    """Refuse a path that a sheet cannot name.

    Raises:
        StudyError: it has what a sheet takes for a variable, or is no UTF-8 text.
    """
    text = str(path)
    if os.path.expandvars(text) != text:
        raise StudyError(
            f"{path}: a sheet would take what follows '$' in this path for a variable; rename it"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StudyError(f"{os.fsencode(path)!r}: a sheet is UTF-8 text; rename it") from None


def teacher_sheet_lines(network: str, source: ImportSource) -> str:
    """Return the ``teachers:`` of a sheet with one imported teacher, named as its network."""
    given = source.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(
        {"teachers": {network: {"import": given}}},
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
