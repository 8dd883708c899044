"""The groups of methods in tables: the student alone, baselines, and methods with SKD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from report.frames.cells import CONTROL, SKD, PairFinding


@dataclass(frozen=True)
class MethodGroups:
    """The methods of some pairs in the order of a table.

    Attributes:
        methods: the student alone first, if there is one.
        starts: the methods above which there is a rule.
    """

    methods: tuple[str, ...]
    starts: frozenset[str]


def group_methods(pairs: Sequence[PairFinding], methods: Sequence[str]) -> MethodGroups:
    """Return the methods that some pair has, and where their groups start.

    The order is the study's, except for the student alone. If baselines and methods with SKD
    alternate in it, there is only the rule below the student alone.
    """
    used = [method for method in methods if any(pair.cell(method) for pair in pairs)]
    taught = [method for method in used if method != CONTROL]
    runs = [list(group) for _, group in groupby(taught, lambda method: _has_skd(pairs, method))]
    starts = [group[0] for group in (runs if len(runs) < 3 else [taught])]
    return MethodGroups((*(m for m in used if m == CONTROL), *taught), frozenset(starts))


def _has_skd(pairs: Sequence[PairFinding], method: str) -> bool:
    cells = [cell for pair in pairs if (cell := pair.cell(method)) is not None]
    return SKD in method.split("+") or any(cell.has_simplifier for cell in cells)
