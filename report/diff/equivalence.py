"""Whether two result sets of one study are equivalent within a margin, by pairs of runs.

How a run is executed (precision, kernels, device) is no part of its identity, so two ways of
executing a study are compared as two results folders. A pair is a run of one identity, finished in
both: the same spec and seed, so the same initial weights, order and views. Let d be the differences
b − a of a cell's pairs in top-1 at the last epoch, in points. Two one-sided t tests at 5 %
(`Difference.within`) decide:

- *equivalent*: the 90 % interval of the mean of d lies within ± margin;
- *not equivalent*: it lies wholly outside;
- *undecided*: neither, or fewer than two pairs.

That all cells are equivalent is an intersection-union test: each cell at 5 % keeps the whole at 5 %
(Berger 1982), without a correction. Cells of one seed share initial weights, order and views, so
over all cells the pairs are not independent: d is averaged over cells at each seed, and the same
test made over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from report.diff.differences import count_values, recorded_execution
from report.findings import Findings
from report.formats import value_text
from report.frames.run_state import UNREADABLE
from report.statistics.intervals import (
    Difference,
    Summary,
    average_by_seed,
    mean_difference,
    summarise,
)
from skd.store.records import Record

EquivalenceOutcome = Literal["equivalent", "not equivalent", "undecided"]
FAILED_OUTCOME = "failed"
NOT_IN_STUDY = "not in the study"
# What of the execution is always shown; everything else only where it differs.
EXECUTION_KEYS = ("device", "precision")


@dataclass(frozen=True)
class CellEquivalence:
    """One cell with finished runs in both sets.

    Attributes:
        cell: PAIR/METHOD, or STUDENT/METHOD without a teacher.
        a, b: top-1 at the last epoch, of the paired runs only.
        difference: b minus a, in points; none without a pair.
        same_teacher: whether both were taught by the same weights; none without a teacher.
    """

    cell: str
    a: Summary
    b: Summary
    difference: Difference | None
    outcome: EquivalenceOutcome
    same_teacher: bool | None


@dataclass(frozen=True)
class UnpairedRuns:
    """Runs of a cell that are finished in either set and not compared, and why.

    Attributes:
        broken: whether the run that is finished in one set failed, or cannot be read, in the other.
            That may be the doing of how it was executed, so equivalence is not shown.
    """

    cell: str
    seeds: tuple[int, ...]
    why: str
    broken: bool


@dataclass(frozen=True)
class SetEquivalence:
    """Two result sets of one study, tested for equivalence.

    Attributes:
        margin: in points.
        cells: those with finished runs in both sets, each once.
        pooled: the mean over all paired cells, over the seeds that all of them have; or none.
        pooled_cells: how many cells it is a mean of.
        executed: how the paired runs of a and of b were executed, with their numbers.
    """

    study: str
    margin: float
    cells: tuple[CellEquivalence, ...]
    pooled: Difference | None
    pooled_cells: int
    unpaired: tuple[UnpairedRuns, ...]
    executed: tuple[Mapping[str, int], Mapping[str, int]]

    @property
    def pooled_outcome(self) -> EquivalenceOutcome:
        """The outcome of the mean over cells."""
        return equivalence_outcome(self.pooled, self.margin)

    @property
    def shown(self) -> bool:
        """Whether all cells are equivalent, at least one, and no run failed in one set alone."""
        equivalent = all(cell.outcome == "equivalent" for cell in self.cells)
        return bool(self.cells) and equivalent and not any(runs.broken for runs in self.unpaired)


def equivalence_outcome(difference: Difference | None, margin: float) -> EquivalenceOutcome:
    """Return the outcome of one mean difference; without an interval it is undecided."""
    if difference is None:
        return "undecided"
    if difference.within(margin):
        return "equivalent"
    return "not equivalent" if difference.is_beyond(margin) else "undecided"


def assess_equivalence(a: Findings, b: Findings, margin: float) -> SetEquivalence:
    """Return whether two result sets of one study are equivalent within ± ``margin`` points."""
    cells_a, cells_b = _cells(a), _cells(b)
    resolution = 100 / a.expansion.images.test_images
    found, unpaired = [], []
    differences: list[dict[int, float]] = []
    paired: list[tuple[Record, Record]] = []
    for key in dict.fromkeys((*cells_a, *cells_b)):
        mine, yours = cells_a.get(key, {}), cells_b.get(key, {})
        unpaired += _unpaired(key, mine, yours)
        if not all(any(run.record for run in side.values()) for side in (mine, yours)):
            continue
        pairs = _pairs(mine, yours)
        by_seed = {seed: two.last.top1 - one.last.top1 for seed, (one, two) in pairs.items()}
        found.append(_assess_cell(key, list(pairs.values()), by_seed, resolution, margin))
        paired += pairs.values()
        differences += [by_seed] if by_seed else []
    # A mean over cells has a finer step than one cell's accuracy.
    step = resolution / math.sqrt(len(differences)) if differences else 0.0
    return SetEquivalence(
        study=a.expansion.study,
        margin=margin,
        cells=tuple(found),
        pooled=mean_difference(average_by_seed(differences).values(), step),
        pooled_cells=len(differences),
        unpaired=tuple(unpaired),
        executed=(
            _execution_counts(one for one, _ in paired),
            _execution_counts(two for _, two in paired),
        ),
    )


@dataclass(frozen=True)
class _RunInSet:
    """A run of one set: its identity, its outcome, its record if it is finished."""

    id: str
    outcome: str
    record: Record | None


def _cells(findings: Findings) -> dict[str, dict[int, _RunInSet]]:
    """Return the runs of each cell by seed; a cell that pairs share is there once."""
    readings = findings.frames.run_states
    return {
        cell.key: {
            seed: _RunInSet(identity, readings[identity].outcome, readings[identity].record)
            for seed, identity in sorted(cell.runs.items())
        }
        for cell in findings.expansion.cells
    }


def _pairs(
    a: Mapping[int, _RunInSet], b: Mapping[int, _RunInSet]
) -> dict[int, tuple[Record, Record]]:
    """Return the records of the runs of one identity that are finished in both, by seed."""
    both = ((seed, a[seed], b[seed]) for seed in a if seed in b)
    return {
        seed: (one.record, two.record)
        for seed, one, two in both
        if one.id == two.id and one.record and two.record
    }


def _assess_cell(
    key: str,
    pairs: Sequence[tuple[Record, Record]],
    by_seed: Mapping[int, float],
    resolution: float,
    margin: float,
) -> CellEquivalence:
    difference = mean_difference(by_seed.values(), resolution)
    taught = [(one.teacher, two.teacher) for one, two in pairs if one.teacher and two.teacher]
    return CellEquivalence(
        cell=key,
        a=summarise((one.last.top1 for one, _ in pairs), resolution),
        b=summarise((two.last.top1 for _, two in pairs), resolution),
        difference=difference,
        outcome=equivalence_outcome(difference, margin),
        same_teacher=all(one.sha256 == two.sha256 for one, two in taught) if taught else None,
    )


def _unpaired(
    key: str, a: Mapping[int, _RunInSet], b: Mapping[int, _RunInSet]
) -> list[UnpairedRuns]:
    """Return the runs of a cell that are finished in either set and have no pair, by the reason."""
    found: dict[tuple[str, bool], list[int]] = {}
    none = _RunInSet("", NOT_IN_STUDY, None)
    for seed in sorted(a.keys() | b.keys()):
        one, two = a.get(seed, none), b.get(seed, none)
        other = bool(one.id and two.id) and one.id != two.id
        if not (one.record or two.record) or (one.record and two.record and not other):
            continue
        broken = not other and bool({one.outcome, two.outcome} & {FAILED_OUTCOME, UNREADABLE})
        why = f"{one.outcome} in A, {two.outcome} in B" + ", with another identity" * other
        found.setdefault((why, broken), []).append(seed)
    return [UnpairedRuns(key, tuple(seeds), why, broken) for (why, broken), seeds in found.items()]


def _execution_counts(records: Iterable[Record]) -> dict[str, int]:
    found = (recorded_execution(record) for record in records)
    return count_values(
        ", ".join(f"{name} {value_text(how.get(name))}" for name in EXECUTION_KEYS) for how in found
    )
