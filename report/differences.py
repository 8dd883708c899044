"""Two result sets of one study compared: versions, runs, cells, and the verdicts that flip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from report.cells import CellFinding
from report.findings import Findings
from report.formats import value_text
from report.statistics import Difference, holm, paired_difference

# What two result sets may differ in, and a number may depend on; of the records' environment.
FACTS = ("skd", "git_commit", "torch", "torchvision", "numpy", "python", "cuda", "cudnn",
         "gpu", "gpu_driver", "cpu", "platform")  # fmt: skip
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
        environments: facts with other values: by name, those of a and of b with their run counts.
        equal: runs with the same identity and the same accuracy at every epoch.
        unequal: runs with the same identity and other accuracies.
        only_a, only_b: finished (pair, method, seed) that the other lacks.
        cells: those with finished runs in both.
    """

    study: str
    environments: Mapping[str, tuple[dict[str, int], dict[str, int]]]
    equal: int
    unequal: int
    only_a: int
    only_b: int
    cells: tuple[CellDifference, ...]


def compare_sets(a: Findings, b: Findings) -> SetDifference:
    """Return how two result sets of one study differ; cells are matched by pair and method."""
    runs_a, runs_b = _finished(a), _finished(b)
    common = runs_a.keys() & runs_b.keys()
    same = [key for key in common if runs_a[key] == runs_b[key]]
    equal = sum(_curve(a, runs_a[key]) == _curve(b, runs_b[key]) for key in same)
    return SetDifference(
        study=a.expansion.study,
        environments=_environments(a, b),
        equal=equal,
        unequal=len(same) - equal,
        only_a=len(runs_a.keys() - common),
        only_b=len(runs_b.keys() - common),
        cells=_cells(a, b),
    )


def _cells(a: Findings, b: Findings) -> tuple[CellDifference, ...]:
    others = {(cell.pair, cell.method): cell for pair in b.pairs for cell in pair.cells}
    found = [
        (cell, other, paired_difference(other.last_by_seed, cell.last_by_seed))
        for pair in a.pairs
        for cell in pair.cells
        if (other := others.get((cell.pair, cell.method))) and cell.done and other.done
    ]
    tested = [n for n, (_, _, difference) in enumerate(found) if difference and difference.se]
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


def _finished(findings: Findings) -> dict[tuple[str, str, int], str]:
    done = findings.frames.runs[findings.frames.runs["outcome"] == "done"]
    keys = zip(done["pair"], done["method"], done["seed"], done["id"], strict=True)
    return {(pair, method, int(seed)): identity for pair, method, seed, identity in keys}


def _curve(findings: Findings, identity: str) -> list[float]:
    record = findings.frames.readings[identity].record
    return [epoch.test_top1 for epoch in record.epochs] if record else []


def _teachers(findings: Findings, cell: CellFinding) -> set[str]:
    records = (findings.frames.readings[identity].record for identity in cell.ids.values())
    return {record.teacher.sha256 for record in records if record and record.teacher}


def _same_teacher(a: set[str], b: set[str]) -> bool | None:
    return a == b if a or b else None


def _environments(a: Findings, b: Findings) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    found = {name: (_values(a, name), _values(b, name)) for name in FACTS}
    return {name: sides for name, sides in found.items() if sides[0].keys() != sides[1].keys()}


def _values(findings: Findings, name: str) -> dict[str, int]:
    records = (reading.record for reading in findings.frames.readings.values())
    return _counts(value_text(r.environment.get(name)) for r in records if r is not None)


def _counts(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
