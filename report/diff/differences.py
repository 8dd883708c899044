"""Two result sets of one study compared: versions, runs, cells, and the verdicts that flip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.formats import value_text
from report.frames.cells import CellFinding
from report.statistics.intervals import Difference, holm, paired_difference
from skd.store.record_differences import record_differences
from skd.store.records import Record

# What two result sets may differ in, and a number may depend on; of the records' environment.
ENVIRONMENT_KEYS = ("skd", "git_commit", "sources", "torch", "torchvision", "numpy", "python", "cuda", "cudnn",
         "gpu", "gpu_driver", "cpu", "platform")  # fmt: skip
# Values of options that older records do not contain.
EXECUTION_DEFAULTS = {"step": "plain", "precision": "float32", "compiled": False, "sharing": 1,
              "processes": 1, "accumulate": 1}  # fmt: skip
EXECUTION_PREFIX = "execution."  # how the names of what is of the records' execution begin
ALPHA = 0.05


@dataclass(frozen=True)
class CellDifference:
    """One (pair, method) of both sets: b minus a at the last epoch, in points, paired by seed.

    Attributes:
        p_holm: of the paired t test, corrected for all cells compared; none of one seed.
        verdicts: a's and b's on the published value; none where there is none.
        teachers: whether both were taught by the same weights; none without a teacher.
    """

    a: CellFinding
    b: CellFinding
    difference: Difference | None
    p_holm: float | None
    verdicts: tuple[str | None, str | None]
    teachers: bool | None

    @property
    def flipped(self) -> bool:
        """Whether the verdict is another."""
        return self.verdicts[0] != self.verdicts[1]

    @property
    def separated(self) -> bool:
        """Whether the two differ significantly."""
        return self.p_holm is not None and self.p_holm < ALPHA


@dataclass(frozen=True)
class SetDifference:
    """What two result sets of one study have in common, and what not.

    Attributes:
        environments: facts of the records' environment and execution with other values: by name,
            those of a and of b with their run counts.
        equal: runs of one identity with the same numbers: all epochs, weights, collapse.
        unequal: runs of one identity with other numbers.
        only_a, only_b: finished (pair, method, seed) that the other lacks.
        cells: those of both sheets with finished runs in either.
    """

    study: str
    environment_differences: Mapping[str, tuple[dict[str, int], dict[str, int]]]
    equal: int
    unequal: int
    only_a: int
    only_b: int
    cells: tuple[CellDifference, ...]


def compare_sets(a: Findings, b: Findings) -> SetDifference:
    """Return how two result sets of one study differ; cells are matched by pair and method."""
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
    others = {(cell.pair, cell.method): cell for pair in b.pairs for cell in pair.cells}
    found = [
        (cell, other, paired_difference(other.last_by_seed, cell.last_by_seed, pair.resolution))
        for pair in a.pairs
        for cell in pair.cells
        if (other := others.get((cell.pair, cell.method))) and (cell.done or other.done)
    ]
    tested = [
        n for n, (_, _, difference) in enumerate(found) if difference and difference.p is not None
    ]
    adjusted = dict(zip(tested, holm([found[n][2].p for n in tested]), strict=True))
    return tuple(
        CellDifference(
            cell,
            other,
            difference,
            adjusted.get(n),
            (_kind(cell), _kind(other)),
            _same_teacher(_teachers(a, cell), _teachers(b, other)),
        )
        for n, (cell, other, difference) in enumerate(found)
    )


def _kind(cell: CellFinding) -> str | None:
    return cell.verdict.kind if cell.verdict else None


def _finished(findings: Findings) -> set[tuple[str, str, int]]:
    """Return (pair or student, method, seed) of what is finished; a shared run stands once."""
    done = findings.frames.runs[findings.frames.runs["outcome"] == "done"]
    place = done["student"].where(done["shared"].astype(bool), done["pair"])
    return set(zip(place, done["method"], done["seed"].astype(int), strict=True))


def _teachers(findings: Findings, cell: CellFinding) -> set[str]:
    records = (findings.frames.run_states[identity].record for identity in cell.ids.values())
    return {record.teacher.sha256 for record in records if record and record.teacher}


def _same_teacher(a: set[str], b: set[str]) -> bool | None:
    return a == b if a or b else None


def _environments(a: Findings, b: Findings) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    sides = [[_facts(record) for record in findings.frames.records.values()] for findings in (a, b)]
    names = dict.fromkeys(name for side in sides for facts in side for name in facts)
    found = {
        name: tuple(count_values(value_text(facts.get(name)) for facts in side) for side in sides)
        for name in names
    }
    return {name: both for name, both in found.items() if both[0].keys() != both[1].keys()}


def _facts(record: Record) -> dict[str, Any]:
    executed = {
        f"{EXECUTION_PREFIX}{name}": value for name, value in recorded_execution(record).items()
    }
    return {**{name: record.environment.get(name) for name in ENVIRONMENT_KEYS}, **executed}


def recorded_execution(record: Record) -> dict[str, Any]:
    """Return how a run was executed, without its sessions; what is not recorded was not chosen."""
    live = {"teacher": "live"} if record.teacher else {}
    found = {**EXECUTION_DEFAULTS, **live, **record.execution}
    return {name: value for name, value in found.items() if name != "sessions"}


def count_values(values: Iterable[str]) -> dict[str, int]:
    """Return how often each value occurs, in the order of their first."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
