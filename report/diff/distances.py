"""How far apart the accuracies of two results of one identity are, in points."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from report.findings import Findings
from skd.store.record_differences import card_differences, record_differences


@dataclass(frozen=True)
class RunDistance:
    """A run or teacher that both sets have under one identity.

    Attributes:
        group: PAIR/METHOD, STUDENT/METHOD without a teacher, or "teacher NAME".
        name: the run's name in its group; empty for a teacher.
        change: B minus A in top-1, in points; of a run at the last epoch.
        equal: whether all numbers are equal, not only this accuracy.
    """

    group: str
    name: str
    change: float
    equal: bool

    @property
    def label(self) -> str:
        """Its name for users."""
        return f"{self.group} {self.name}".rstrip()


@dataclass(frozen=True)
class Distance:
    """How far the runs of a group are apart, in points of top-1.

    Attributes:
        name: the group.
        runs: the number of runs under one identity in both sets.
        unequal: the number of those with different numbers.
        mean: the mean of the runs' absolute differences.
        furthest: the run with the largest absolute difference.
        mean_change: the mean of B minus A.
    """

    name: str
    runs: int
    unequal: int
    mean: float
    furthest: RunDistance
    mean_change: float

    @classmethod
    def of(cls, name: str, runs: Iterable[RunDistance]) -> Distance:
        """Return the distance of at least one run."""
        runs = tuple(runs)
        return cls(
            name=name,
            runs=len(runs),
            unequal=sum(not run.equal for run in runs),
            mean=statistics.fmean(abs(run.change) for run in runs),
            furthest=max(runs, key=lambda run: abs(run.change)),
            mean_change=statistics.fmean(run.change for run in runs),
        )

    @property
    def largest(self) -> float:
        """The largest absolute difference of a run."""
        return abs(self.furthest.change)


def measure_distances(a: Findings, b: Findings) -> tuple[Distance | None, tuple[Distance, ...]]:
    """Return how far apart the runs with the same identity are.

    Returns:
        The distance over all students' runs, each once, or ``None`` if no run is in both sets; and
        that of each teacher and cell, those furthest apart first.
    """
    runs = list(_runs(a, b))
    groups: dict[str, list[RunDistance]] = {}
    for run in [*_teachers(a, b), *runs]:
        groups.setdefault(run.group, []).append(run)
    distances = [Distance.of(name, members) for name, members in groups.items()]
    ordered = sorted(distances, key=lambda distance: -distance.largest)
    return (Distance.of("all runs", runs) if runs else None), tuple(ordered)


def _runs(a: Findings, b: Findings) -> Iterator[RunDistance]:
    """Yield the runs of the cells of A that B has, too; each identity once."""
    records_a, records_b = a.frames.records, b.frames.records
    seen: set[str] = set()
    for cell in a.expansion.cells:
        for seed, identity in sorted(cell.runs.items()):
            if identity in seen or identity not in records_a or identity not in records_b:
                continue
            seen.add(identity)
            ours, theirs = records_a[identity], records_b[identity]
            change = theirs.last.top1 - ours.last.top1
            equal = not record_differences(ours, theirs)
            yield RunDistance(cell.key, f"seed {seed}", change, equal)


def _teachers(a: Findings, b: Findings) -> Iterator[RunDistance]:
    cards_a, cards_b = a.frames.cards, b.frames.cards
    for node in a.expansion.teachers:
        if node.id in cards_a and node.id in cards_b:
            ours, theirs = cards_a[node.id], cards_b[node.id]
            equal = not card_differences(ours, theirs)
            yield RunDistance(f"teacher {node.name}", "", theirs.test_top1 - ours.test_top1, equal)
