"""What a command that only reads asks of a results folder: it must be there. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from skd.common.errors import SkdError
from skd.study.expansion import Expansion, load_expansion_readonly

ADVICE = "run this in the folder that holds results/, or name the folder: --results FOLDER"


class ResultsError(SkdError):
    """There is no such results folder. Says what is there instead, and what to do."""


def open_study(study: str, results: Path) -> Expansion:
    """Return the expansion of a study whose results are to be looked at; writes nothing.

    Raises:
        ResultsError: there is no such results folder.
        StudyError: as `load_expansion_readonly`.
    """
    require_results(results)
    return load_expansion_readonly(study, results)


def require_results(results: Path) -> None:
    """Refuse a results folder that is not there or holds none, as in a wrong working directory.

    Raises:
        ResultsError: says what is there instead.
    """
    require_folder(results)
    if _holds_results(results):
        return
    inner = results / "results"
    hint = f" ({inner} does)" if inner.is_dir() and _holds_results(inner) else ""
    raise ResultsError(
        f"{results.absolute()} holds no results: neither runs/ nor teachers/ nor an expanded "
        f"study{hint}; {ADVICE}"
    )


def require_folder(results: Path) -> None:
    """Refuse results that are no folder.

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
    raise ResultsError(f"{found}; {ADVICE}")


def _holds_results(folder: Path) -> bool:
    """Whether anything was trained, expanded or brought here; a clone has results/reference."""
    kept = ("runs", "teachers", "reference")
    return any((folder / name).is_dir() for name in kept) or any(folder.glob("*/specs.json"))
