"""The findings of a study, cell by cell and pair by pair, independent of how they are written."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from report.frames.code_columns import code_marks
from report.frames.study_frames import Frames
from report.statistics.intervals import Difference, Summary, paired_difference, summarise
from report.statistics.paired_tests import MethodComparison, best_method, compare_methods
from report.statistics.verdicts import DEFAULT_MARGIN, Verdict, judge_published
from skd.study.expansion import Expansion
from skd.study.published import PublishedKey, PublishedValue, differences_from_published

CONTROL = "student"  # the method that every gain is measured against: the student alone
SKD = "skd"


@dataclass(frozen=True)
class Mark:
    """Something a reader must know of a cell: what came of its runs, which teachers taught them."""

    kind: str
    text: str


@dataclass(frozen=True)
class CellFinding:
    """One (pair, method), over its seeds. Accuracies are top-1 in percent.

    Attributes:
        last, best: over the finished runs, at the last and at each run's best epoch.
        last_by_seed: of the finished runs.
        top5: top-5 at the last epoch, over the finished runs.
        ids: identity by seed, of all runs expected.
        gain: over the student alone at the last epoch, paired by seed.
        published: the published value, or none.
        verdict: on it; none where there is none, or where the recipe is not the published one's.
    """

    pair: str
    teacher: str
    student: str
    method: str
    has_simplifier: bool
    done: int
    expected: int
    last: Summary
    best: Summary
    last_by_seed: Mapping[int, float]
    top5: Summary
    ids: Mapping[int, str]
    gain: Difference | None
    published: PublishedValue | None
    verdict: Verdict | None
    marks: tuple[Mark, ...]

    @property
    def is_control(self) -> bool:
        """Whether this is the student alone."""
        return self.method == CONTROL

    @property
    def anchor(self) -> str:
        """Where in the page the cell's runs are."""
        return anchor("cell", self.teacher, self.student, self.method)


@dataclass(frozen=True)
class TeacherFinding:
    """A teacher beside its published value.

    One teacher is one value: there is no interval, and every verdict on its students holds for
    this teacher alone.
    """

    name: str
    top1: float | None
    top5: float | None
    published: PublishedValue | None

    @property
    def difference(self) -> float | None:
        """Ours minus published, in points."""
        if self.top1 is None or self.published is None:
            return None
        return self.top1 - self.published.top1


@dataclass(frozen=True)
class PairFinding:
    """One pair: its teacher, its cells in the order of the sheet, its methods compared.

    Attributes:
        style: same where teacher and student are of one architecture family.
        comparisons: of every two methods with common seeds, Holm-corrected within the pair.
        best: the method whose lead over each other one is significant, or none.
        teachers: how many different weights taught its runs.
        resolution: the step between possible accuracies, in points: 100 over the test images.
    """

    pair: str
    student: str
    style: Literal["same", "different"]
    teacher: TeacherFinding
    cells: tuple[CellFinding, ...]
    comparisons: tuple[MethodComparison, ...]
    best: str | None
    teachers: int
    resolution: float

    @property
    def has_mixed_teachers(self) -> bool:
        """Whether runs of the pair had different teachers: its comparisons then mix them."""
        return self.teachers > 1

    def cell(self, method: str) -> CellFinding | None:
        """Return one method's cell, or none where the pair goes without it."""
        return next((cell for cell in self.cells if cell.method == method), None)

    def compared(self, a: str, b: str) -> MethodComparison | None:
        """Return the comparison of two methods as a minus b, or none."""
        for found in self.comparisons:
            if (found.a, found.b) == (a, b):
                return found
            if (found.a, found.b) == (b, a):
                return found.reversed()
        return None


def find_pairs(
    expansion: Expansion,
    frames: Frames,
    published: Mapping[PublishedKey, PublishedValue],
    margin: float = DEFAULT_MARGIN,
    contradicted: Collection[str] = (),
) -> list[PairFinding]:
    """Return every pair's findings, in the order of the study's sheet.

    ``contradicted`` are identities of runs whose stored files contradict their records.
    """
    teachers = frames.teachers.set_index("name")
    resolution = 100 / expansion.images.test_images
    pairs = []
    for (teacher, student), runs in frames.runs.groupby(["teacher", "student"], sort=False):
        network = teachers.at[teacher, "network"]
        control = accuracy_by_seed(runs, CONTROL)
        taught_by = set(runs["teacher_sha256"].dropna())
        families = {expansion.networks[name].family for name in (network, student)}
        cells = []
        for method, cell in runs.groupby("method", sort=False):
            spec = expansion.cell_of(teacher, student, method).spec
            value = published.get((network, student, method))
            unlike = bool(
                differences_from_published(expansion.dataset, spec.recipe, student, method)
            )
            cells.append(
                _finding(
                    cell,
                    control,
                    value,
                    None if unlike else margin,
                    spec.method.simplifier is not None,
                    marks_of(cell, taught_by, teachers.at[teacher, "sha256"], contradicted),
                    resolution,
                )
            )
        comparisons = compare_methods(
            runs["pair"].iloc[0], {c.method: c.last_by_seed for c in cells}, resolution
        )
        pairs.append(
            PairFinding(
                pair=runs["pair"].iloc[0],
                student=student,
                style="same" if len(families) == 1 else "different",
                teacher=TeacherFinding(
                    teacher,
                    _or_none(teachers.at[teacher, "test_top1"]),
                    _or_none(teachers.at[teacher, "test_top5"]),
                    published.get((network, student, "teacher")),
                ),
                cells=tuple(cells),
                comparisons=comparisons,
                teachers=len(taught_by),
                resolution=resolution,
                best=None
                if len(taught_by) > 1
                else best_method({c.method: c.last.mean for c in cells}, comparisons),
            )
        )
    return pairs


def with_skd(baseline: str, methods: Sequence[str]) -> str | None:
    """Return the study's sum of SKD and a baseline, or none."""
    name = f"{SKD}+{baseline}"
    return name if name in methods and baseline in methods else None


def accuracy_by_seed(runs: pd.DataFrame, method: str) -> dict[int, float]:
    """Return the last-epoch top-1 of one pair's finished runs of a method, by seed."""
    done = runs[(runs["method"] == method) & (runs["outcome"] == "done")]
    return {int(s): float(a) for s, a in zip(done["seed"], done["last_top1"], strict=True)}


def marks_of(
    cell: pd.DataFrame,
    taught_by: Collection[str],
    teacher_sha256: str | None,
    contradicted: Collection[str] = (),
) -> tuple[Mark, ...]:
    """Return what must be said of a cell's runs, the gravest first.

    Args:
        cell: its rows of the frame of runs.
        taught_by: the hashes of all weights that taught the pair's runs.
        teacher_sha256: of the teacher at hand, or none.
        contradicted: identities of runs whose stored files contradict their records.
    """
    collapsed = int(cell["collapsed"].eq(True).sum())
    counts = cell["outcome"].value_counts()
    marks = []
    if n := int(cell["id"].isin(contradicted).sum()):
        marks.append(Mark("contradicted", f"{n} contradicted by stored files"))
    if collapsed:
        marks.append(Mark("collapsed", f"{collapsed} collapsed"))
    marks += [Mark(kind, text) for kind, text in code_marks(cell)]
    own = set(cell["teacher_sha256"].dropna())
    if len(own) > 1:
        marks.append(Mark("mixed", f"mixes {len(own)} teachers"))
    elif own and isinstance(teacher_sha256, str) and own != {teacher_sha256}:
        marks.append(Mark("mixed", "another teacher than at hand"))
    elif own and len(taught_by) > 1:
        marks.append(Mark("mixed", f"1 of the pair's {len(taught_by)} teachers"))
    for kind in ("failed", "unreadable", "interrupted", "running"):
        if n := int(counts.get(kind, 0)):
            marks.append(Mark(kind, f"{n} {kind}"))
    if missing := int(counts.get("missing", 0)):
        text = "not run" if missing == len(cell) else f"{missing} not run"
        marks.append(Mark("missing", text))
    return tuple(marks)


def anchor(*parts: str) -> str:
    """Return an id for the page; other parts have another id."""
    return "-".join(re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m[0]):x}", part) for part in parts)


def _finding(
    cell: pd.DataFrame,
    control: Mapping[int, float],
    published: PublishedValue | None,
    margin: float | None,
    has_simplifier: bool,
    marks: tuple[Mark, ...],
    resolution: float,
) -> CellFinding:
    first = cell.iloc[0]
    done = cell[cell["outcome"] == "done"]
    by_seed = accuracy_by_seed(done, first["method"])
    verdict = None
    if published is not None and margin is not None:
        verdict = judge_published(
            list(done["last_top1"]), list(done["best_top1"]), published, margin, resolution
        )
    return CellFinding(
        pair=first["pair"],
        teacher=first["teacher"],
        student=first["student"],
        method=first["method"],
        has_simplifier=has_simplifier,
        done=len(done),
        expected=len(cell),
        last=summarise(done["last_top1"], resolution),
        best=summarise(done["best_top1"], resolution),
        last_by_seed=by_seed,
        top5=summarise(done["last_top5"], resolution),
        ids={int(seed): identity for seed, identity in zip(cell["seed"], cell["id"], strict=True)},
        gain=None
        if first["method"] == CONTROL
        else paired_difference(by_seed, control, resolution),
        published=published,
        verdict=verdict,
        marks=marks,
    )


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
