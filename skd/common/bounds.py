"""Which numbers options may have: counts that this machine can bear, and finite numbers.

Imports no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TypeVar

import typer

Given = TypeVar("Given", int, None, list[int])


def core_count() -> int:
    """Return the machine's logical CPU cores."""
    return os.cpu_count() or 1


def max_threads() -> int:
    """Return the most CPU threads with which a run from another machine can go on here.

    More than there are cores is slow, and rounds as it did there; far more ends the process.
    """
    return max(1024, core_count())


def max_lanes() -> int:
    """Return the most runs that one process trains side by side."""
    return max(16, core_count())


def max_workers() -> int:
    """Return the most processes that decode images for one training."""
    return 2 * core_count()


def upper_bound_check(maximum: Callable[[], int], why: str) -> Callable[[Given], Given]:
    """Return a callback of an option that refuses counts which the machine cannot bear.

    Args:
        maximum: returns the largest allowed number here.
        why: what it follows from, for the message.
    """

    def check(value: Given) -> Given:
        for count in value if isinstance(value, list) else [value]:
            if count is not None and count > (bound := maximum()):
                raise typer.BadParameter(f"got {count}; at most {bound} on this machine ({why})")
        return value

    return check


def check_finite(value: float | None) -> float | None:
    """Refuse an option's infinite number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"got {value:g}; allowed: a finite number")
    return value


check_threads = upper_bound_check(core_count, "one a core")
check_lanes = upper_bound_check(max_lanes, "one a core, and 16 in any case")
check_workers = upper_bound_check(max_workers, "two a core")
check_processes = upper_bound_check(core_count, "one a core")
