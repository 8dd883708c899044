"""Whose views are worth storing: where a study's runs would ask a teacher more often than that.

Imports no torch. Without them each run asks its teacher for one view of every image an epoch; to
store all V views of every image takes as long as V such epochs, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeFloat

from skd.common.frozen import FrozenModel, digest
from skd.store.store import StoreEntry
from skd.store.teacher_view_files import (
    ViewsFile,
    ViewsOutput,
    ViewsPrecision,
    stored_outputs,
    views_bytes,
)
from skd.study.expansion import Expansion


class ViewsConfig(FrozenModel):
    """What a user asks for: the configuration's keys of the same names."""

    teacher_views: Literal["auto", "always", "never"] = "auto"
    teacher_views_precision: ViewsPrecision = "float16"
    teacher_views_gigabytes: NonNegativeFloat = 10.0  # of 10^9 bytes: the largest file


@dataclass(frozen=True)
class ViewsPlan:
    """The views of one teacher that a study stores.

    Attributes:
        teacher: its name in the study.
        files: one for each output.
        bytes: of all of them.
        run_epochs: epochs of all runs that will look them up.
        view_epochs: epochs' worth of forward passes that they take: the views of an image.
        cells: keys of the cells that look them up.
    """

    teacher: str
    files: tuple[ViewsFile, ...]
    bytes: int
    run_epochs: int
    view_epochs: int
    cells: frozenset[str]

    @property
    def outputs(self) -> tuple[ViewsOutput, ...]:
        """The outputs that are stored."""
        return tuple(file.output for file in self.files)

    @property
    def precision(self) -> ViewsPrecision:
        """Of all files."""
        return self.files[0].precision

    @property
    def digest(self) -> str:
        """Another one means other files."""
        folder = self.files[0].folder
        names = [file.path.name for file in self.files]
        return digest([self.files[0].teacher.id, folder.name, names])[:8]

    @property
    def done(self) -> bool:
        """Whether all files are there."""
        return all(file.is_made() for file in self.files)


def plan_views(
    expansion: Expansion, teachers: dict[str, StoreEntry], views_config: ViewsConfig
) -> dict[str, ViewsPlan]:
    """Return what a study stores, by the teacher's name, whatever of it is there or trained.

    All cells count, not those that are left: the answer stays the same while the study runs.

    Args:
        expansion: the study.
        teachers: their folders in the store, by name.
        views_config: the user's.
    """
    if views_config.teacher_views == "never":
        return {}
    found = (_plan(expansion, name, entry, views_config) for name, entry in teachers.items())
    return {plan.teacher: plan for plan in found if plan is not None}


def _plan(
    expansion: Expansion, name: str, entry: StoreEntry, wish: ViewsConfig
) -> ViewsPlan | None:
    if not expansion.images.views:  # endless: no file holds them
        return None
    images, network = expansion.images, expansion.networks[expansion.teacher(name).spec.network]
    widths: dict[ViewsOutput, int] = {"logits": images.classes, "pooled": network.pooled}
    precision = wish.teacher_views_precision
    sizes = {
        output: views_bytes(images.train_images, images.views, width, precision)
        for output, width in widths.items()
    }
    small = {output for output, size in sizes.items() if size <= 1e9 * wish.teacher_views_gigabytes}
    read: dict[str, tuple[ViewsOutput, ...]] = {}
    epochs = 0
    for cell in expansion.cells:
        outputs = stored_outputs(cell.needs)
        if cell.teacher == name and outputs and set(outputs) <= small:
            read[cell.key] = outputs
            epochs += len(cell.runs) * cell.spec.recipe.epochs
    if not read or (wish.teacher_views == "auto" and epochs <= images.views):
        return None
    code = expansion.views_code_of(name)
    wanted = [output for output in widths if any(output in outputs for outputs in read.values())]
    return ViewsPlan(
        teacher=name,
        files=tuple(
            ViewsFile(entry, expansion.dataset, output, precision, code) for output in wanted
        ),
        bytes=sum(sizes[output] for output in wanted),
        run_epochs=epochs,
        view_epochs=images.views,
        cells=frozenset(read),
    )
