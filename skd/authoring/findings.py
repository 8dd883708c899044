"""The result of a check of a loss or a transformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skd.authoring.error_places import short_traceback, whole_traceback


@dataclass(frozen=True)
class Finding:
    """The result of a check: passed, refused for a reason, or failed with a problem.

    Attributes:
        subject: what was checked: a pair of networks, a setting.
        check: the check's name.
        refused: why it was not tried.
        problem: what is wrong; for an error, its message and place.
        traceback: the whole traceback of an error.
    """

    subject: str
    check: str
    refused: str = ""
    problem: str = ""
    traceback: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """The colour and the word of the result."""
        if self.problem:
            return "red", "broken"
        return ("yellow", "refused") if self.refused else ("green", "ok")


def run_check(subject: str, check: str, find_problem: Callable[[], str]) -> Finding:
    """Return the finding of a check, also if it raises an error."""
    try:
        return Finding(subject, check, problem=find_problem())
    except Exception as error:
        return failed(subject, check, error)


def failed(subject: str, check: str, error: Exception) -> Finding:
    """Return the finding of a check that raised an error."""
    problem, traceback = short_traceback(error), whole_traceback(error)
    return Finding(subject, check, problem=problem, traceback=traceback)
