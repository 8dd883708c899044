"""The cases of a benchmark, from a study's cells, and their execution. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from benchmarks.variants import DEFAULT_VARIANT
from skd.common.errors import UnknownNameError
from skd.common.frozen import FrozenModel
from skd.study.expansion import Cell, Expansion, ImageInfo, NetworkProfile, ObjectiveProfile
from skd.study.spec import RunSpec


class BenchmarkCase(FrozenModel):
    """One (pair, method) of a study, with everything that a side needs to build it.

    It is sent to the sides' processes as JSON.
    """

    pair: str
    method: str
    spec: RunSpec  # of the study's first seed
    teacher: str | None = None  # its name in the sheet; None if the method needs no teacher
    teacher_id: str | None = None  # its identity in the store
    images: ImageInfo
    student_facts: NetworkProfile
    teacher_facts: NetworkProfile | None = None
    extra: ObjectiveProfile = ObjectiveProfile()

    @property
    def key(self) -> str:
        """The case's label."""
        return f"{self.pair}/{self.method}"

    @property
    def batch_size(self) -> int:
        """Images in a step of one run."""
        return self.spec.recipe.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; the last one may be smaller and counts as one."""
        return -(-self.images.train_images // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        return self.spec.recipe.epochs * self.steps_per_epoch


class SideOptions(FrozenModel):
    """The execution options of a side.

    Attributes:
        device: the device.
        threads: torch's CPU threads in the side's process, without its loader's workers.
        variant: the variant of our side, from `benchmarks.variants`.
        lanes: number of runs trained in parallel on the device; ``None``: the side's default.
        workers: number of worker processes of the side's loaders; ``None``: its default.
        teacher: ``live``: the teacher's forward pass must run in each step; ``auto``: the side
            may replace it.
        results: the results folder with the teachers.
        mdistiller: folder of a checkout of mdistiller.
        mdistiller_site: folder with packages that mdistiller needs and this environment lacks.
    """

    device: Literal["cpu", "cuda"]
    threads: PositiveInt
    variant: str = DEFAULT_VARIANT
    lanes: PositiveInt | None = None
    workers: int | None = None
    teacher: Literal["auto", "live"] = "auto"
    results: Path
    mdistiller: Path | None = None
    mdistiller_site: Path | None = None


def select_cases(
    expansion: Expansion, pairs: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[BenchmarkCase]:
    """Return the cases of the given pairs and methods, in the study's order.

    Args:
        expansion: the study.
        pairs: each as ``TEACHER--STUDENT``; empty: the study's first pair.
        methods: empty: all methods of the pair.

    Raises:
        UnknownNameError: the study has no such pair, or the pair has no such method.
    """
    known = {f"{teacher}--{student}": (teacher, student) for teacher, student in expansion.pairs}
    for pair in pairs:
        if pair not in known:
            raise UnknownNameError("pair", pair, known)
    chosen = [name for name in known if name in pairs] if pairs else [*known][:1]
    cases: dict[str, BenchmarkCase] = {}  # pairs share the cell of a method without a teacher
    for pair in chosen:
        teacher, student = known[pair]
        allowed = expansion.methods_of(teacher, student)
        for method in methods:
            if method not in allowed:
                raise UnknownNameError(f"method of {pair}", method, allowed)
        for method in allowed:
            if not methods or method in methods:
                cell = expansion.cell_of(teacher, student, method)
                cases[cell.key] = _case(expansion, cell)
    return [*cases.values()]


def _case(expansion: Expansion, cell: Cell) -> BenchmarkCase:
    node = expansion.teacher(cell.teacher) if cell.teacher else None
    return BenchmarkCase(
        pair=cell.pair,
        method=cell.method,
        spec=cell.spec,
        teacher=cell.teacher,
        teacher_id=node.id if node else None,
        images=expansion.images,
        student_facts=expansion.networks[cell.spec.network],
        teacher_facts=expansion.networks[node.spec.network] if node else None,
        extra=cell.extra,
    )
