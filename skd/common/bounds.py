"""Checks of the numbers in options: bounds that depend on the machine, and finite numbers.

Imports no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TypeVar

import typer

Value = TypeVar("Value", int, None, list[int])


def core_count() -> int:
    """Return the number of logical CPU cores."""
    return os.cpu_count() or 1


def max_threads() -> int:
    """Return the largest number of CPU threads with which a stored run can be resumed.

    A run keeps its number of threads, which affects rounding. More threads than cores are slow;
    far more would end the process.
    """
    return max(1024, core_count())


def max_lanes() -> int:
    """Return the largest number of runs that one process trains side by side."""
    return max(16, core_count())


def max_workers() -> int:
    """Return the largest number of processes that decode images for one training."""
    return 2 * core_count()


def upper_bound_check(maximum: Callable[[], int], reason: str) -> Callable[[Value], Value]:
    """Return an option's callback that refuses numbers above a maximum of this machine.

    Args:
        maximum: returns the largest allowed number.
        reason: the rule for the maximum, for the message.
    """

    def check(value: Value) -> Value:
        for count in value if isinstance(value, list) else [value]:
            if count is not None and count > (bound := maximum()):
                raise typer.BadParameter(f"got {count}; at most {bound} on this machine ({reason})")
        return value

    return check


def check_finite(value: float | None) -> float | None:
    """Refuse infinity and NaN as an option's value."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"got {value:g}; allowed: a finite number")
    return value


check_threads = upper_bound_check(core_count, "one per core")
check_lanes = upper_bound_check(max_lanes, "one per core, or 16 if that is more")
check_workers = upper_bound_check(max_workers, "two per core")
check_processes = upper_bound_check(core_count, "one per core")
