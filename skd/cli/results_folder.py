"""Checks of the results folder for commands that read it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from skd.common.errors import SkdError
from skd.study.expansion import Expansion
from skd.study.expansion_files import load_expansion_readonly

ADVICE = "run this in the folder that contains results/, or name the folder: --results FOLDER"


class ResultsError(SkdError):
    """The results folder does not exist or has no results. The message says what to do."""


def open_study(study: str, results: Path) -> Expansion:
    """Return the expansion of a study without writing to its results folder.

    Raises:
        ResultsError: the results folder does not exist or has no results.
        StudyError: see `load_expansion_readonly`.
    """
    require_results(results)
    return load_expansion_readonly(study, results)


def require_results(results: Path) -> None:
    """Check that a results folder exists and has results: the working directory may be wrong.

    Raises:
        ResultsError: it does not exist or has no results.
    """
    require_folder(results)
    if _has_results(results):
        return
    inner = results / "results"
    hint = f" ({inner} has)" if inner.is_dir() and _has_results(inner) else ""
    raise ResultsError(
        f"{results.absolute()} has no results: neither runs/ nor teachers/ nor an expanded study"
        f"{hint}; {ADVICE}"
    )


def require_folder(results: Path) -> None:
    """Check that the results folder exists and is a folder.

    Raises:
        ResultsError: it does not exist, or it is a file or a broken link.
    """
    if results.is_dir():
        return
    if results.is_symlink() and not results.exists():
        problem = f"{results} is a link to {results.readlink()}, which does not exist"
    elif results.exists():
        problem = f"{results} is a file, not a results folder"
    else:
        problem = f"there is no results folder {results.absolute()}"
    raise ResultsError(f"{problem}; {ADVICE}")


def _has_results(folder: Path) -> bool:
    """Return whether a folder has runs, teachers or studies; a clone has results/reference."""
    names = ("runs", "teachers", "reference")
    return any((folder / name).is_dir() for name in names) or any(folder.glob("*/specs.json"))
