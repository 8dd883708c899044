"""Comparison of two result sets of one study: versions, runs, cells, and changed verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.formats import value_text
from report.frames.cells import CellFinding
from report.statistics.intervals import ALPHA, Difference, holm, paired_difference
from skd.store.record_differences import record_differences
from skd.store.records import Record

# Keys of the records' environment that numbers may depend on.
ENVIRONMENT_KEYS = (
    "skd",
    "git_commit",
    "sources",
    "torch",
    "torchvision",
    "numpy",
    "python",
    "cuda",
    "cudnn",
    "gpu",
    "gpu_driver",
    "cpu",
    "platform",
)
# Values of options that older records do not contain.
EXECUTION_DEFAULTS = {
    "step": "plain",
    "precision": "float32",
    "compiled": False,
    "sharing": 1,
    "processes": 1,
    "accumulate": 1,
}
EXECUTION_PREFIX = "execution."  # of the names of keys of the records' execution


@dataclass(frozen=True)
class CellDifference:
    """One (pair, method) in both sets.

    Attributes:
        a: the cell in set A.
        b: the cell in set B.
        difference: b minus a at the last epoch, in points, paired by seed.
        p_holm: p-value of the paired t test, corrected for all compared cells; ``None`` for one
            seed.
        verdicts: on the published value in A and in B; each ``None`` without a verdict.
        same_teacher: whether the teacher's weights are equal; ``None`` without a teacher.
    """

    a: CellFinding
    b: CellFinding
    difference: Difference | None
    p_holm: float | None
    verdicts: tuple[str | None, str | None]
    same_teacher: bool | None

    @property
    def verdict_flipped(self) -> bool:
        """Whether the verdicts of A and B differ."""
        return self.verdicts[0] != self.verdicts[1]

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 %, after the correction."""
        return self.p_holm is not None and self.p_holm < ALPHA


@dataclass(frozen=True)
class SetDifference:
    """The differences of two result sets, A and B, of one study.

    Attributes:
        environment_differences: keys of the records' environment and execution whose values
            differ: by name, the values in A and in B with their numbers of runs.
        equal: number of runs of the same identity with equal numbers (all epochs, weights,
            collapse).
        unequal: number of runs of the same identity with different numbers.
        only_a, only_b: number of finished (pair, method, seed) that the other set does not have.
        cells: the cells of both sheets with finished runs in at least one set.
    """

    study: str
    environment_differences: Mapping[str, tuple[dict[str, int], dict[str, int]]]
    equal: int
    unequal: int
    only_a: int
    only_b: int
    cells: tuple[CellDifference, ...]


def compare_sets(a: Findings, b: Findings) -> SetDifference:
    """Return the differences of two result sets. Cells are matched by pair and method."""
    records_a, records_b = a.frames.records, b.frames.records
    common = records_a.keys() & records_b.keys()
    equal = sum(not record_differences(records_a[run], records_b[run]) for run in common)
    runs_a, runs_b = _finished(a), _finished(b)
    return SetDifference(
        study=a.expansion.study,
        environment_differences=_environments(a, b),
        equal=equal,
        unequal=len(common) - equal,
        only_a=len(runs_a - runs_b),
        only_b=len(runs_b - runs_a),
        cells=_cells(a, b),
    )


def _cells(a: Findings, b: Findings) -> tuple[CellDifference, ...]:
    cells_b = {(cell.pair, cell.method): cell for pair in b.pairs for cell in pair.cells}
    matched = [
        (
            cell_a,
            cell_b,
            paired_difference(cell_b.last_by_seed, cell_a.last_by_seed, pair.resolution),
        )
        for pair in a.pairs
        for cell_a in pair.cells
        if (cell_b := cells_b.get((cell_a.pair, cell_a.method))) and (cell_a.done or cell_b.done)
    ]
    tested = [
        i for i, (_, _, difference) in enumerate(matched) if difference and difference.p is not None
    ]
    adjusted = dict(zip(tested, holm([matched[i][2].p for i in tested]), strict=True))
    return tuple(
        CellDifference(
            cell_a,
            cell_b,
            difference,
            adjusted.get(i),
            (_verdict_kind(cell_a), _verdict_kind(cell_b)),
            _is_same_teacher(_teachers(a, cell_a), _teachers(b, cell_b)),
        )
        for i, (cell_a, cell_b, difference) in enumerate(matched)
    )


def _verdict_kind(cell: CellFinding) -> str | None:
    return cell.verdict.kind if cell.verdict else None


def _finished(findings: Findings) -> set[tuple[str, str, int]]:
    """Return (pair or student, method, seed) of the finished runs; a shared run is there once."""
    done = findings.frames.runs[findings.frames.runs["outcome"] == "done"]
    names = done["student"].where(done["shared"].astype(bool), done["pair"])
    return set(zip(names, done["method"], done["seed"].astype(int), strict=True))


def _teachers(findings: Findings, cell: CellFinding) -> set[str]:
    records = (findings.frames.run_states[identity].record for identity in cell.ids.values())
    return {record.teacher.sha256 for record in records if record and record.teacher}


def _is_same_teacher(a: set[str], b: set[str]) -> bool | None:
    return a == b if a or b else None


def _environments(a: Findings, b: Findings) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    sides = [
        [_environment_values(record) for record in findings.frames.records.values()]
        for findings in (a, b)
    ]
    keys = dict.fromkeys(key for side in sides for values in side for key in values)
    counts = {
        key: tuple(count_values(value_text(values.get(key)) for values in side) for side in sides)
        for key in keys
    }
    return {key: both for key, both in counts.items() if both[0].keys() != both[1].keys()}


def _environment_values(record: Record) -> dict[str, Any]:
    execution = recorded_execution(record)
    return {
        **{key: record.environment.get(key) for key in ENVIRONMENT_KEYS},
        **{f"{EXECUTION_PREFIX}{name}": value for name, value in execution.items()},
    }


def recorded_execution(record: Record) -> dict[str, Any]:
    """Return a record's execution without its sessions, with defaults for missing options."""
    live = {"teacher": "live"} if record.teacher else {}
    execution = {**EXECUTION_DEFAULTS, **live, **record.execution}
    return {name: value for name, value in execution.items() if name != "sessions"}


def count_values(values: Iterable[str]) -> dict[str, int]:
    """Return the number of occurrences of each value, in the order of first occurrence."""
    return dict(Counter(values))
