"""Test whether two result sets of one study are equivalent within a margin.

The execution of a run (precision, kernels, device) is not part of its identity, so two executions
of a study are compared as two results folders. A pair is a run that is finished in both folders
with the same identity: the same spec and seed, and therefore the same initial weights, order and
views. Let d be the differences b − a of a cell's pairs in top-1 at the last epoch, in points. Two
one-sided t tests at 5 % (`Difference.is_within`) decide:

- *equivalent*: the 90 % interval of the mean of d is within ± margin;
- *not equivalent*: it is outside ± margin;
- *undecided*: neither, or fewer than two pairs.

The claim that all cells are equivalent is an intersection-union test. If each cell is tested at
5 %, the whole test is at 5 % without a correction (Berger 1982). Cells with the same seed share
initial weights, order and views, so pairs of different cells are not independent. For the mean over
all cells, d is therefore averaged over the cells at each seed, and the test is over seeds.
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
EXECUTION_KEYS = ("device", "precision")  # keys of the execution that are always printed


@dataclass(frozen=True)
class CellEquivalence:
    """One cell with finished runs in both sets.

    Attributes:
        cell: PAIR/METHOD, or STUDENT/METHOD without a teacher.
        a, b: top-1 at the last epoch of the paired runs.
        difference: b minus a, in points; ``None`` without a pair.
        same_teacher: whether the teacher's weights are equal; ``None`` without a teacher.
    """

    cell: str
    a: Summary
    b: Summary
    difference: Difference | None
    outcome: EquivalenceOutcome
    same_teacher: bool | None


@dataclass(frozen=True)
class UnpairedRuns:
    """Runs of a cell that are finished in at least one set and cannot be compared.

    Attributes:
        failed_in_one: whether a run that is finished in one set failed, or cannot be read, in the
            other. The execution may have caused the failure, so the sets are not equivalent.
    """

    cell: str
    seeds: tuple[int, ...]
    reason: str
    failed_in_one: bool


@dataclass(frozen=True)
class SetEquivalence:
    """Two result sets of one study, tested for equivalence.

    Attributes:
        margin: margin of equivalence, in points.
        cells: the cells with finished runs in both sets, each once.
        pooled: the mean difference over all paired cells, at the seeds that all of them have; or
            ``None``.
        pooled_cells: the number of cells in that mean.
        unpaired: the runs that are not compared.
        executions: the executions of the paired runs of A and of B, with their numbers of runs.
    """

    study: str
    margin: float
    cells: tuple[CellEquivalence, ...]
    pooled: Difference | None
    pooled_cells: int
    unpaired: tuple[UnpairedRuns, ...]
    executions: tuple[Mapping[str, int], Mapping[str, int]]

    @property
    def pooled_outcome(self) -> EquivalenceOutcome:
        """The outcome of the mean over cells."""
        return equivalence_outcome(self.pooled, self.margin)

    @property
    def is_equivalent(self) -> bool:
        """Whether all cells (at least one) are equivalent and no run failed in only one set."""
        if any(runs.failed_in_one for runs in self.unpaired):
            return False
        return bool(self.cells) and all(cell.outcome == "equivalent" for cell in self.cells)


def equivalence_outcome(difference: Difference | None, margin: float) -> EquivalenceOutcome:
    """Return the outcome for one mean difference: undecided without an interval."""
    if difference is None:
        return "undecided"
    if difference.is_within(margin):
        return "equivalent"
    return "not equivalent" if difference.is_beyond(margin) else "undecided"


def assess_equivalence(a: Findings, b: Findings, margin: float) -> SetEquivalence:
    """Test two result sets of one study for equivalence within ± ``margin`` points."""
    cells_a, cells_b = _runs_by_cell(a), _runs_by_cell(b)
    resolution = 100 / a.expansion.images.test_images
    cells, unpaired = [], []
    differences: list[dict[int, float]] = []
    paired: list[tuple[Record, Record]] = []
    for key in dict.fromkeys((*cells_a, *cells_b)):
        runs_a, runs_b = cells_a.get(key, {}), cells_b.get(key, {})
        unpaired += _unpaired(key, runs_a, runs_b)
        if not all(any(run.record for run in side.values()) for side in (runs_a, runs_b)):
            continue
        pairs = _pairs(runs_a, runs_b)
        by_seed = {seed: in_b.last.top1 - in_a.last.top1 for seed, (in_a, in_b) in pairs.items()}
        cells.append(_assess_cell(key, list(pairs.values()), by_seed, resolution, margin))
        paired += pairs.values()
        differences += [by_seed] if by_seed else []
    # The mean over cells has a finer resolution than the accuracy of one cell.
    step = resolution / math.sqrt(len(differences)) if differences else 0.0
    return SetEquivalence(
        study=a.expansion.study,
        margin=margin,
        cells=tuple(cells),
        pooled=mean_difference(average_by_seed(differences).values(), step),
        pooled_cells=len(differences),
        unpaired=tuple(unpaired),
        executions=(
            _execution_counts(in_a for in_a, _ in paired),
            _execution_counts(in_b for _, in_b in paired),
        ),
    )


@dataclass(frozen=True)
class _RunInSet:
    """A run in one set, with its record if it is finished."""

    id: str
    outcome: str
    record: Record | None


def _runs_by_cell(findings: Findings) -> dict[str, dict[int, _RunInSet]]:
    """Return the runs of each cell by seed; a cell that several pairs share is there once."""
    states = findings.frames.run_states
    return {
        cell.key: {
            seed: _RunInSet(identity, states[identity].outcome, states[identity].record)
            for seed, identity in sorted(cell.runs.items())
        }
        for cell in findings.expansion.cells
    }


def _pairs(
    a: Mapping[int, _RunInSet], b: Mapping[int, _RunInSet]
) -> dict[int, tuple[Record, Record]]:
    """Return the records of the runs that are finished in both with one identity, by seed."""
    both = ((seed, a[seed], b[seed]) for seed in a if seed in b)
    return {
        seed: (in_a.record, in_b.record)
        for seed, in_a, in_b in both
        if in_a.id == in_b.id and in_a.record and in_b.record
    }


def _assess_cell(
    key: str,
    pairs: Sequence[tuple[Record, Record]],
    by_seed: Mapping[int, float],
    resolution: float,
    margin: float,
) -> CellEquivalence:
    difference = mean_difference(by_seed.values(), resolution)
    teachers = [(x.teacher, y.teacher) for x, y in pairs if x.teacher and y.teacher]
    same_teacher = all(x.sha256 == y.sha256 for x, y in teachers) if teachers else None
    return CellEquivalence(
        cell=key,
        a=summarise((in_a.last.top1 for in_a, _ in pairs), resolution),
        b=summarise((in_b.last.top1 for _, in_b in pairs), resolution),
        difference=difference,
        outcome=equivalence_outcome(difference, margin),
        same_teacher=same_teacher,
    )


def _unpaired(
    key: str, a: Mapping[int, _RunInSet], b: Mapping[int, _RunInSet]
) -> list[UnpairedRuns]:
    """Return the runs of a cell that are finished in at least one set without a pair, by reason."""
    by_reason: dict[tuple[str, bool], list[int]] = {}
    absent = _RunInSet("", NOT_IN_STUDY, None)
    for seed in sorted(a.keys() | b.keys()):
        in_a, in_b = a.get(seed, absent), b.get(seed, absent)
        differs = bool(in_a.id and in_b.id) and in_a.id != in_b.id
        if not (in_a.record or in_b.record) or (in_a.record and in_b.record and not differs):
            continue
        failed = bool({in_a.outcome, in_b.outcome} & {FAILED_OUTCOME, UNREADABLE})
        reason = f"{in_a.outcome} in A, {in_b.outcome} in B"
        reason += ", with another identity" * differs
        by_reason.setdefault((reason, failed and not differs), []).append(seed)
    return [
        UnpairedRuns(key, tuple(seeds), reason, failed)
        for (reason, failed), seeds in by_reason.items()
    ]


def _execution_counts(records: Iterable[Record]) -> dict[str, int]:
    executions = (recorded_execution(record) for record in records)
    return count_values(
        ", ".join(f"{key} {value_text(execution.get(key))}" for key in EXECUTION_KEYS)
        for execution in executions
    )
