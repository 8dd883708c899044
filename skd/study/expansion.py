"""The model of an expanded study: every teacher, cell and run of a sheet, resolved.

`skd expand` expands a sheet; this step knows networks and terms, and needs torch. The workflow and
the report read the result: `skd.study.expansion_files`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from pydantic import Field, NonNegativeInt, PositiveInt

from skd.code.closure import SourceFile, closure_digests
from skd.common.errors import suggest
from skd.common.frozen import FrozenModel, digest
from skd.study.code_roots import run_source_roots, views_source_roots
from skd.study.figure_choice import FigureChoice
from skd.study.presentation import TableOptions
from skd.study.sheet import ImportSource
from skd.study.sheet_files import StudyError
from skd.study.spec import DatasetSpec, Recipe, RunSpec, TeacherSpec


class ImageInfo(FrozenModel):
    """Number and size of the images of a run, after the split and the training limit."""

    train_images: PositiveInt
    test_images: PositiveInt
    size: PositiveInt = Field(description="height and width in pixels")
    channels: PositiveInt
    classes: PositiveInt
    views: NonNegativeInt = Field(
        1, description="views that augmentation can make of an image; 0: unlimited, as for photos"
    )

    @property
    def photos(self) -> bool:
        """Whether the images are photos, which are decoded when they are needed."""
        return not self.views


class NetworkProfile(FrozenModel):
    """Size and cost of a network, for one image of the data set's size."""

    parameters: NonNegativeInt
    multiply_adds: NonNegativeInt = Field(description="of one forward pass on one image")
    activations: NonNegativeInt = Field(
        description="elements of the outputs of its conv, norm and linear layers for one image"
    )
    layers: NonNegativeInt = Field(description="conv, norm and linear layers")
    family: str = Field(description="architecture; networks of one family have the same style")
    pooled: NonNegativeInt = Field(0, description="width of the globally pooled feature")


class ObjectiveProfile(FrozenModel):
    """Size and cost of an objective, the networks excluded."""

    parameters: NonNegativeInt = 0
    bytes: NonNegativeInt = Field(0, description="of parameters and buffers, memory banks included")
    multiply_adds: NonNegativeInt = Field(
        0, description="of one forward pass on one image; see docs/planning.md for what counts"
    )
    views: PositiveInt = Field(
        1, description="views of each image on which the networks are run in a step"
    )


class TeacherNode(FrozenModel):
    """A teacher of an expanded study."""

    name: str
    id: str
    spec: TeacherSpec
    origin: str
    source: ImportSource | None = None
    leaks: bool = Field(False, description="whether it was also trained on the validation images")
    extra: ObjectiveProfile = Field(
        default_factory=ObjectiveProfile,
        description="size and cost of the objective that trains it, in addition to its network; "
        "not part of an identity",
    )

    @property
    def partner(self) -> str | None:
        """The network of the student that it is trained to suit, or ``None``."""
        return self.spec.run.partner if self.spec.kind == "trained" else None


class Cell(FrozenModel):
    """A pair and a method, with all seeds. A method without a teacher has one cell per student."""

    pair: str
    method: str
    teacher: str | None
    student: str
    spec: RunSpec = Field(description="of the first seed")
    runs: dict[NonNegativeInt, str] = Field(description="seed to identity")
    extra: ObjectiveProfile = Field(
        default_factory=ObjectiveProfile,
        description="size and cost of its objective, in addition to the networks; not part of an "
        "identity",
    )
    needs: tuple[str, ...] = Field(
        (), description="teacher outputs that its terms read; not part of an identity"
    )

    @property
    def digest(self) -> str:
        """Hash of the cell's runs, as in the file name of its result."""
        return cells_digest([self])

    @property
    def key(self) -> str:
        """Name of the cell for users: ``PAIR/METHOD``."""
        return f"{self.pair}/{self.method}"

    @property
    def path(self) -> str:
        """Path of the cell's file within ``results/<study>/cells``, without its suffix."""
        return f"{self.key}-{self.digest}"

    def run(self, seed: int) -> RunSpec:
        """Return the spec of the run with a seed."""
        return self.spec.model_copy(update={"seed": seed})


class Expansion(FrozenModel):
    """A resolved study: what the workflow runs and what the report expects."""

    study: str
    sources: str = Field(description="digest of everything that the expansion depends on")
    title: str
    description: str
    sheet: str = Field(description="the sheet as written")
    dataset: DatasetSpec
    recipe: Recipe
    methods: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = Field(description="(teacher's name, student)")
    seeds: tuple[int, ...]
    teachers: tuple[TeacherNode, ...]
    cells: tuple[Cell, ...]
    images: ImageInfo
    networks: dict[str, NetworkProfile] = Field(description="of every teacher, student and partner")
    code: dict[str, SourceFile] = Field(
        default_factory=dict, description="source files that its runs' numbers depend on, by path"
    )
    notes: tuple[str, ...] = Field((), description="settings of the sheet without full effect")
    display: dict[str, str] = Field(
        default_factory=dict, description="names that the report shows; see `Sheet.display`"
    )
    tables: TableOptions = Field(TableOptions(), description="layout of the report's tables")
    figures: FigureChoice = Field(
        FigureChoice(), description="methods of detailed figures; see `figure_methods`"
    )

    @property
    def figure_methods(self) -> tuple[str, ...]:
        """The methods that detailed figures show, and of which `skd analyse` makes a t-SNE."""
        return self.figures.shown(self.methods)

    def code_of(self, spec: RunSpec) -> dict[str, str]:
        """Return the digests of the source files that a run's numbers depend on, by path."""
        return closure_digests(
            run_source_roots(spec, lambda name: self.networks[name].family), self.code
        )

    def views_code_of(self, teacher: str) -> dict[str, str]:
        """Return the digests of the source files that a teacher's views depend on, by path."""
        family = self.networks[self.teacher(teacher).spec.network].family
        return closure_digests(views_source_roots(self.dataset, family), self.code)

    @cached_property
    def _cells_by_key(self) -> dict[str, Cell]:
        return {cell.key: cell for cell in self.cells}

    def cell(self, pair: str, method: str) -> Cell:
        """Return the cell of a pair and a method.

        Raises:
            StudyError: the study has no such cell.
        """
        return self.cell_by_key(f"{pair}/{method}")

    def cell_by_key(self, key: str) -> Cell:
        """Return the cell with a key.

        Raises:
            StudyError: the study has no such cell.
        """
        try:
            return self._cells_by_key[key]
        except KeyError:
            raise StudyError(
                f"study {self.study} has no cell '{key}'{suggest(key, self._cells_by_key)}"
            ) from None

    def cell_of(self, teacher: str, student: str, method: str) -> Cell:
        """Return the cell of a pair and a method.

        For a method without a teacher, this is the cell that all pairs with the student share.
        """
        shared = self._cells_by_key.get(f"{student}/{method}")
        return shared or self.cell(f"{teacher}--{student}", method)

    def methods_of(self, teacher: str, student: str) -> list[str]:
        """Return the study's methods without those that the pair leaves out."""
        keys = (f"{teacher}--{student}", student)
        return [
            method
            for method in self.methods
            if any(f"{key}/{method}" in self._cells_by_key for key in keys)
        ]

    def specs(self) -> Iterator[tuple[str, TeacherSpec | RunSpec]]:
        """Yield the identity and the spec of each teacher and run."""
        yield from ((node.id, node.spec) for node in self.teachers)
        for cell in self.cells:
            yield from ((identity, cell.run(seed)) for seed, identity in cell.runs.items())

    def teacher(self, name: str) -> TeacherNode:
        """Return the teacher with a name.

        Raises:
            StudyError: the study has no such teacher.
        """
        teachers = {node.name: node for node in self.teachers}
        try:
            return teachers[name]
        except KeyError:
            raise StudyError(
                f"study {self.study} has no teacher '{name}'{suggest(name, teachers)}"
            ) from None


def cells_digest(cells: Iterable[Cell]) -> str:
    """Return a hash of the runs of some cells, for a file name that changes with the runs."""
    return digest(sorted(run for cell in cells for run in cell.runs.values()))[:8]


def check_expected_identity(what: str, identity: str, expected: str | None) -> None:
    """Check that an identity is the one that the workflow was started with.

    Raises:
        StudyError: the sheet or the code has changed since then.
    """
    if expected is not None and expected != identity:
        raise StudyError(
            f"{what} is now {identity}, not {expected}: the sheet or the code changed after the "
            "workflow was started; start it again"
        )
