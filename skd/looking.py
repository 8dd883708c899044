"""What a command that only reads asks of a results folder: it must be there. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from skd.errors import SkdError
from skd.study import Expansion, read_expansion


class ResultsError(SkdError):
    """There is no such results folder. Says what is there instead, and what to do."""


def look_up(study: str, results: Path) -> Expansion:
    """Return the expansion of a study whose results are to be looked at; writes nothing.

    Raises:
        ResultsError: there is no such results folder.
        StudyError: as `read_expansion`.
    """
    require_results(results)
    return read_expansion(study, results)


def require_results(results: Path) -> None:
    """Refuse a results folder that is not there, as in a wrong working directory.

    Raises:
        ResultsError: says what is there instead.
    """
    if results.is_dir():
        return
    if results.is_symlink() and not results.exists():
        found = f"{results} is a link to {results.readlink()}, which is not there"
    elif results.exists():
        found = f"{results} is a file, not a results folder"
    else:
        found = f"there is no results folder {results.absolute()}"
    raise ResultsError(
        f"{found}; run this in the folder that holds results/, or name the folder: --results FOLDER"
    )
