"""How long a comparison may take. Imports no torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

Item = TypeVar("Item")

# For what is measured after the last round: the hardware's peak, and building teachers' views.
CLOSING_SECONDS, CLOSING_SHARE = 30.0, 0.25


@dataclass(frozen=True)
class TimeLimit:
    """Two moments of the monotonic clock, in seconds; the default limits nothing.

    Attributes:
        goal: by which the rounds should be over; no round that would exceed it is started.
        end: at which whatever is still running is ended.
    """

    goal: float = math.inf
    end: float = math.inf

    @classmethod
    def of_minutes(cls, minutes: float | None) -> Self:
        """Return the limit of a run that begins now; none: no limit."""
        if minutes is None:
            return cls()
        now, seconds = time.monotonic(), 60 * minutes
        closing = min(CLOSING_SECONDS, CLOSING_SHARE * seconds)
        return cls(now + seconds - closing, now + seconds)

    @property
    def left(self) -> float:
        """Seconds until the end, 0 at least."""
        return max(0.0, self.end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the end is reached."""
        return self.left == 0

    @property
    def before_closing(self) -> TimeLimit:
        """The limit of all but what comes last: ended soon after the goal, if it goes beyond."""
        return TimeLimit(self.goal, (self.goal + self.end) / 2)

    def share(self, parts: float) -> TimeLimit:
        """Return the limit of what comes next, whose part of the time until the goal is 1/parts."""
        now = time.monotonic()
        return TimeLimit(now + max(0.0, self.goal - now) / parts, self.end)

    def while_time_allows(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the first item, and each further one if it fits before the goal.

        What an item takes is judged by the one before it.
        """
        took = 0.0
        for number, item in enumerate(items):
            begun = time.monotonic()
            if number and begun + took > self.goal:
                return
            yield item
            took = time.monotonic() - begun


UNLIMITED = TimeLimit()
