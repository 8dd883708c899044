"""Which teachers' outputs on all views a study stores. Imports no torch.

Storing saves time if the study's runs take more epochs than there are views. With a live teacher,
each run computes the teacher's outputs on one view of every image in each epoch. Storing the
outputs on all V views of every image takes as long as V such epochs, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import NonNegativeFloat

from skd.common.choices import TeacherViewsMode, ViewsOutput, ViewsPrecision
from skd.common.errors import SkdError
from skd.common.frozen import FrozenModel, digest
from skd.store.store import StoreEntry
from skd.store.teacher_view_files import ViewsFile, storable_outputs, stored_outputs, views_bytes
from skd.study.expansion import Cell, Expansion


class ViewsConfig(FrozenModel):
    """The user's choices: the keys of the workflow's configuration with the same names."""

    teacher_views: TeacherViewsMode = "auto"
    teacher_views_precision: ViewsPrecision = "float16"
    teacher_views_gigabytes: NonNegativeFloat = 10.0  # the largest file, in 10^9 bytes


@dataclass(frozen=True)
class ViewsPlan:
    """The views of one teacher that a study stores.

    Attributes:
        teacher: the teacher's name in the study.
        files: one file for each output.
        bytes: the size of all files.
        run_epochs: the number of epochs of all runs that use the files.
        view_epochs: the number of views of an image: storing them takes as long as that number of
            epochs with a live teacher.
        cells: the keys of the cells that use the files.
    """

    teacher: str
    files: tuple[ViewsFile, ...]
    bytes: int
    run_epochs: int
    view_epochs: int
    cells: frozenset[str]

    @property
    def outputs(self) -> tuple[ViewsOutput, ...]:
        """The stored outputs."""
        return tuple(file.output for file in self.files)

    @property
    def precision(self) -> ViewsPrecision:
        """The precision of all files."""
        return self.files[0].precision

    @property
    def digest(self) -> str:
        """A hash of the files' names, for the name of the rule's output."""
        folder = self.files[0].folder
        names = [file.path.name for file in self.files]
        return digest([self.files[0].teacher.id, folder.name, names])[:8]

    @property
    def done(self) -> bool:
        """Whether all files exist."""
        return all(file.is_made() for file in self.files)


class UnstorableViewsError(SkdError, ValueError):
    """Stored views were requested for runs whose views cannot be stored. Says which and why."""


def check_views_request(cells: Iterable[Cell], mode: TeacherViewsMode) -> None:
    """Check that "always" does not ask for stored views that would be wrong.

    Args:
        cells: the cells whose runs are trained.
        mode: the user's choice.

    Raises:
        UnstorableViewsError: a cell's recipe makes views that cannot be stored.
    """
    if mode != "always":
        return
    for cell in cells:
        problem = cell.spec.recipe.stored_views_problem()
        if cell.teacher and problem and stored_outputs(cell.needs):
            raise UnstorableViewsError(
                f"{cell.key}: the recipe's {problem}, so stored views of the teacher would be "
                "wrong; choose teacher views auto or never (live on the command line)"
            )


def check_useful_views(expansion: Expansion, teacher: str) -> None:
    """Check that some run of a study can use stored views of a teacher.

    Raises:
        UnstorableViewsError: the recipes of all runs that would look them up forbid it.
    """
    readers = [
        cell
        for cell in expansion.cells
        if cell.teacher == teacher and stored_outputs(cell.needs) is not None
    ]
    problems = {cell.key: cell.spec.recipe.stored_views_problem() for cell in readers}
    if problems and all(problems.values()):
        key, problem = next(iter(problems.items()))
        raise UnstorableViewsError(
            f"no run of {expansion.study} can use stored views of {teacher}; {key}: the recipe's "
            f"{problem}"
        )


def plan_views(
    expansion: Expansion, teachers: dict[str, StoreEntry], views_config: ViewsConfig
) -> dict[str, ViewsPlan]:
    """Return the views that a study stores, by the teacher's name.

    All cells count, finished or not, so the result stays the same while the study runs.

    Args:
        expansion: the study.
        teachers: the teachers' folders in the store, by name.
        views_config: the user's choices.
    """
    if views_config.teacher_views == "never":
        return {}
    plans = (_plan(expansion, name, entry, views_config) for name, entry in teachers.items())
    return {plan.teacher: plan for plan in plans if plan is not None}


def _plan(
    expansion: Expansion, name: str, entry: StoreEntry, config: ViewsConfig
) -> ViewsPlan | None:
    if not expansion.images.views:  # random views cannot be stored
        return None
    images, network = expansion.images, expansion.networks[expansion.teacher(name).spec.network]
    widths: dict[ViewsOutput, int] = {"logits": images.classes, "pooled": network.pooled}
    precision = config.teacher_views_precision
    sizes = {
        output: views_bytes(images.train_images, images.views, width, precision)
        for output, width in widths.items()
    }
    small = {
        output for output, size in sizes.items() if size <= 1e9 * config.teacher_views_gigabytes
    }
    outputs_by_cell: dict[str, tuple[ViewsOutput, ...]] = {}
    epochs = 0
    for cell in expansion.cells:
        outputs = storable_outputs(cell.spec.recipe, cell.needs)
        if cell.teacher == name and outputs and set(outputs) <= small:
            outputs_by_cell[cell.key] = outputs
            epochs += len(cell.runs) * cell.spec.recipe.epochs
    if not outputs_by_cell or (config.teacher_views == "auto" and epochs <= images.views):
        return None
    code = expansion.views_code_of(name)
    needed = {output for outputs in outputs_by_cell.values() for output in outputs}
    stored = [output for output in widths if output in needed]
    return ViewsPlan(
        teacher=name,
        files=tuple(
            ViewsFile(entry, expansion.dataset, output, precision, code) for output in stored
        ),
        bytes=sum(sizes[output] for output in stored),
        run_epochs=epochs,
        view_epochs=images.views,
        cells=frozenset(outputs_by_cell),
    )
