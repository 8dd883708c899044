"""The findings of a study by cell and by pair, independent of any output format."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from report.frames.marks import Mark, marks_of
from report.frames.study_frames import Frames
from report.statistics.intervals import Difference, Summary, paired_difference, summarise
from report.statistics.paired_tests import MethodComparison, compare_methods
from report.statistics.paired_tests import best_method as find_best_method
from report.statistics.verdicts import DEFAULT_MARGIN, Verdict, judge_published
from skd.study.expansion import Expansion
from skd.study.published import PublishedKey, PublishedValue, differences_from_published

CONTROL = "student"  # the student alone: every gain is measured against this method
SKD = "skd"


@dataclass(frozen=True)
class CellFinding:
    """The results of one (pair, method) over its seeds. Accuracies are top-1 in percent.

    Attributes:
        done: number of finished runs.
        expected: number of runs in the study.
        last: accuracy of the finished runs at the last epoch.
        best: accuracy of the finished runs, each at its best epoch.
        last_by_seed: accuracy of each finished run at the last epoch, by seed.
        top5: top-5 accuracy of the finished runs at the last epoch.
        ids: identity of every expected run, by seed.
        gain: last-epoch accuracy minus that of the student alone, paired by seed.
        published: the published value, or ``None``.
        verdict: the verdict on the published value; ``None`` without one, or if the study's
            recipe is not the published one.
        marks: reservations about the runs.
        own_teacher: the teacher's name if the method has another one than the pair; else ``None``.
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
    own_teacher: str | None = None

    @property
    def is_control(self) -> bool:
        """Whether this is the student alone."""
        return self.method == CONTROL

    @property
    def anchor(self) -> str:
        """The id of the cell's runs in the page."""
        return anchor("cell", self.teacher, self.student, self.method)


@dataclass(frozen=True)
class TeacherFinding:
    """A teacher and its published value.

    A teacher is a single network, so its accuracy has no interval. Every verdict on its students is
    valid for this teacher only.
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
    """One pair: its teacher, its cells in the order of the sheet, and the method comparisons.

    Attributes:
        style: ``same`` if teacher and student are of the same architecture family.
        comparisons: of every two methods with common seeds, Holm-corrected within the pair.
        best_method: the method that is significantly better than every other, or ``None``.
        num_teachers: number of different weights of the pair's teacher among its runs; the teachers
            that methods have of their own do not count.
        resolution: the step between possible accuracies in points, 100 over the number of test
            images.
    """

    pair: str
    student: str
    style: Literal["same", "different"]
    teacher: TeacherFinding
    cells: tuple[CellFinding, ...]
    comparisons: tuple[MethodComparison, ...]
    best_method: str | None
    num_teachers: int
    resolution: float

    @property
    def has_mixed_teachers(self) -> bool:
        """Whether runs of the pair had different teachers, so that its comparisons mix them."""
        return self.num_teachers > 1

    def cell(self, method: str) -> CellFinding | None:
        """Return one method's cell, or ``None`` if the pair does not have the method."""
        return next((cell for cell in self.cells if cell.method == method), None)

    def comparison_of(self, a: str, b: str) -> MethodComparison | None:
        """Return the comparison of two methods as a minus b, or ``None``."""
        for comparison in self.comparisons:
            if (comparison.a, comparison.b) == (a, b):
                return comparison
            if (comparison.a, comparison.b) == (b, a):
                return comparison.reversed()
        return None


def find_pairs(
    expansion: Expansion,
    frames: Frames,
    published: Mapping[PublishedKey, PublishedValue],
    margin: float = DEFAULT_MARGIN,
    contradicted: Collection[str] = (),
) -> list[PairFinding]:
    """Return the findings of every pair, in the order of the study's sheet.

    Args:
        expansion: the study.
        frames: its tidy frames.
        published: the published values.
        margin: margin of equivalence of the verdicts, in points.
        contradicted: identities of runs whose stored files contradict their records.
    """
    teachers = frames.teachers.set_index("name")
    resolution = 100 / expansion.images.test_images
    code_states = frames.runs["code_state"].nunique()
    pairs = []
    for (name, student), runs in frames.runs.groupby(["teacher", "student"], sort=False):
        teacher = teachers.loc[name]
        cells = _cell_findings(
            expansion, runs, name, teachers, published, margin, contradicted, code_states
        )
        pairs.append(_pair_finding(expansion, runs, teacher, student, cells, published, resolution))
    return pairs


def with_skd(baseline: str, methods: Sequence[str]) -> str | None:
    """Return the study's method that combines SKD with a baseline, or ``None``."""
    name = f"{SKD}+{baseline}"
    return name if name in methods and baseline in methods else None


def accuracy_by_seed(runs: pd.DataFrame, method: str) -> dict[int, float]:
    """Return the last-epoch top-1 of one pair's finished runs of a method, by seed."""
    done = runs[(runs["method"] == method) & (runs["outcome"] == "done")]
    return {int(s): float(a) for s, a in zip(done["seed"], done["last_top1"], strict=True)}


def anchor(*parts: str) -> str:
    """Return an id for the page. Different parts give different ids."""
    return "-".join(re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m[0]):x}", part) for part in parts)


def _pair_finding(
    expansion: Expansion,
    runs: pd.DataFrame,
    teacher: pd.Series,
    student: str,
    cells: Sequence[CellFinding],
    published: Mapping[PublishedKey, PublishedValue],
    resolution: float,
) -> PairFinding:
    pair, network = runs["pair"].iloc[0], teacher["network"]
    families = {expansion.networks[name].family for name in (network, student)}
    shared = [cell.method for cell in cells if cell.own_teacher is None]
    weights = set(runs[runs["method"].isin(shared)]["teacher_sha256"].dropna())
    comparisons = compare_methods(pair, {c.method: c.last_by_seed for c in cells}, resolution)
    best = None
    if len(weights) <= 1:
        best = find_best_method({c.method: c.last.mean for c in cells}, comparisons)
    return PairFinding(
        pair=pair,
        student=student,
        style="same" if len(families) == 1 else "different",
        teacher=TeacherFinding(
            teacher.name,
            _value_or_none(teacher["test_top1"]),
            _value_or_none(teacher["test_top5"]),
            published.get((network, student, "teacher")),
        ),
        cells=tuple(cells),
        comparisons=comparisons,
        best_method=best,
        num_teachers=len(weights),
        resolution=resolution,
    )


def _cell_findings(
    expansion: Expansion,
    runs: pd.DataFrame,
    pair_teacher: str,
    teachers: pd.DataFrame,
    published: Mapping[PublishedKey, PublishedValue],
    margin: float,
    contradicted: Collection[str],
    code_states: int,
) -> list[CellFinding]:
    """Return the findings of one pair's cells, in the order of the sheet."""
    control = accuracy_by_seed(runs, CONTROL)
    student = runs["student"].iloc[0]
    nodes = {
        method: expansion.cell_of(pair_teacher, student, method)
        for method in runs["method"].unique()
    }
    names = {method: node.teacher or pair_teacher for method, node in nodes.items()}
    cells = []
    for method, cell_runs in runs.groupby("method", sort=False):
        teacher, spec = teachers.loc[names[method]], nodes[method].spec
        of_teacher = runs[runs["method"].map(names) == names[method]]
        weights = set(of_teacher["teacher_sha256"].dropna())
        has_other_recipe = bool(
            differences_from_published(expansion.dataset, spec.recipe, student, method)
        )
        cells.append(
            _cell_finding(
                cell_runs,
                control,
                published.get((teacher["network"], student, method)),
                None if has_other_recipe else margin,
                spec.method.simplifier is not None,
                marks_of(cell_runs, weights, teacher["sha256"], contradicted, code_states),
                100 / expansion.images.test_images,
                names[method] if names[method] != pair_teacher else None,
            )
        )
    return cells


def _cell_finding(
    cell_runs: pd.DataFrame,
    control: Mapping[int, float],
    published: PublishedValue | None,
    margin: float | None,
    has_simplifier: bool,
    marks: tuple[Mark, ...],
    resolution: float,
    own_teacher: str | None,
) -> CellFinding:
    first = cell_runs.iloc[0]
    done = cell_runs[cell_runs["outcome"] == "done"]
    by_seed = accuracy_by_seed(done, first["method"])
    verdict = None
    if published is not None and margin is not None:
        verdict = judge_published(
            list(done["last_top1"]), list(done["best_top1"]), published, margin, resolution
        )
    gain = None
    if first["method"] != CONTROL:
        gain = paired_difference(by_seed, control, resolution)
    return CellFinding(
        pair=first["pair"],
        teacher=first["teacher"],
        student=first["student"],
        method=first["method"],
        has_simplifier=has_simplifier,
        done=len(done),
        expected=len(cell_runs),
        last=summarise(done["last_top1"], resolution),
        best=summarise(done["best_top1"], resolution),
        last_by_seed=by_seed,
        top5=summarise(done["last_top5"], resolution),
        ids={
            int(seed): identity
            for seed, identity in zip(cell_runs["seed"], cell_runs["id"], strict=True)
        },
        gain=gain,
        published=published,
        verdict=verdict,
        marks=marks,
        own_teacher=own_teacher,
    )


def _value_or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
