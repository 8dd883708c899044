"""The time limit of a benchmark. Imports no torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

Item = TypeVar("Item")

# Reserved for the measurements after the last round: the hardware's peak, and teachers' views.
CLOSING_SECONDS, CLOSING_SHARE = 30.0, 0.25


@dataclass(frozen=True)
class TimeLimit:
    """Two times of the monotonic clock, in seconds. The default is no limit.

    Attributes:
        goal: when the rounds should be finished. No round that would exceed it is started.
        end: when everything that is still running is ended.
    """

    goal: float = math.inf
    end: float = math.inf

    @classmethod
    def of_minutes(cls, minutes: float | None) -> Self:
        """Return the limit of a benchmark that starts now; ``None``: no limit."""
        if minutes is None:
            return cls()
        now, seconds = time.monotonic(), 60 * minutes
        closing = min(CLOSING_SECONDS, CLOSING_SHARE * seconds)
        return cls(now + seconds - closing, now + seconds)

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, at least 0."""
        return max(0.0, self.end - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the end has been reached."""
        return self.seconds_left == 0

    @property
    def before_closing(self) -> TimeLimit:
        """The limit of the rounds: they may exceed the goal by half of the reserved time."""
        return TimeLimit(self.goal, (self.goal + self.end) / 2)

    def share(self, parts: float) -> TimeLimit:
        """Return the limit of a next part that has 1/``parts`` of the time until the goal."""
        now = time.monotonic()
        return TimeLimit(now + max(0.0, self.goal - now) / parts, self.end)

    def while_time_allows(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the first item, and each further item that is expected to end before the goal.

        The expected duration is that of the previous item.
        """
        duration = 0.0
        for number, item in enumerate(items):
            started = time.monotonic()
            if number and started + duration > self.goal:
                return
            yield item
            duration = time.monotonic() - started


UNLIMITED = TimeLimit()
