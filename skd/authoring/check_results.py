"""The result of one check of a network or a data set. Does not import torch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """A check that passed, with or without a note, or failed with a problem."""

    check: str
    note: str = ""
    problem: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """The colour and the word of the result."""
        return ("red", "broken") if self.problem else ("green", "ok")


class CheckFailedError(Exception):
    """What a check requires does not hold. The message says what."""


Check = Callable[[], str | None]  # returns a note; raises CheckFailedError


def run_checks(checks: dict[str, Check]) -> Iterator[CheckResult]:
    """Run checks by name, in order. An error that a check does not expect is its problem too."""
    for name, check in checks.items():
        try:
            yield CheckResult(name, note=check() or "")
        except CheckFailedError as error:
            yield CheckResult(name, problem=str(error))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            problem = f"{type(error).__name__}: {text} ({place.filename}, line {place.lineno})"
            yield CheckResult(name, problem=problem)


def require(holds: bool, problem: str) -> None:
    """Raise CheckFailedError with a problem unless something holds."""
    if not holds:
        raise CheckFailedError(problem)
