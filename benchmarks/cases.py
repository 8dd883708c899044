"""What is measured: a study's cells, as cases, and how they are executed. Imports no torch."""

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
    """One (pair, method) of a study, with all that a side needs to build it.

    It goes to the sides' processes as JSON.
    """

    pair: str
    method: str
    spec: RunSpec  # of the study's first seed
    teacher: str | None = None  # the teacher's name in the sheet; none where the method needs none
    teacher_id: str | None = None  # its place in the store
    images: ImageInfo
    student_facts: NetworkProfile
    teacher_facts: NetworkProfile | None = None
    extra: ObjectiveProfile = ObjectiveProfile()

    @property
    def key(self) -> str:
        """How a person names the case."""
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
    """How a side is to be executed.

    Attributes:
        device: where.
        threads: torch's CPU threads in the side's own process (a loader's workers come on top).
        variant: of ours, by its name in `benchmarks.variants`; the other sides have none.
        lanes: runs side by side on one device, where the side can do so; none: its own choice.
        workers: of the loaders, where the side has any; none: its own default.
        teacher: ``live`` forbids a side to replace the teacher's forward pass by anything.
        results: where teachers are kept.
        mdistiller: folder of a checkout.
        mdistiller_site: folder with the packages that it needs and this environment lacks.
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
    """Return the cases for what a user asked, in the study's order of pairs and methods.

    Args:
        expansion: the study.
        pairs: as ``TEACHER--STUDENT``; none: the study's first.
        methods: none: all that the study has for the pair.

    Raises:
        UnknownNameError: the study has no such pair, or the pair no such method; names those
            there are.
    """
    known = {f"{teacher}--{student}": (teacher, student) for teacher, student in expansion.pairs}
    for pair in pairs:
        if pair not in known:
            raise UnknownNameError("pair", pair, known)
    chosen = [name for name in known if name in pairs] if pairs else [*known][:1]
    found: dict[
        str, BenchmarkCase
    ] = {}  # a method without a teacher has one cell for several pairs
    for pair in chosen:
        teacher, student = known[pair]
        allowed = expansion.methods_of(teacher, student)
        for method in methods:
            if method not in allowed:
                raise UnknownNameError(f"method of {pair}", method, allowed)
        for method in allowed:
            if not methods or method in methods:
                cell = expansion.cell_of(teacher, student, method)
                found[cell.key] = _case(expansion, cell)
    return [*found.values()]


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
