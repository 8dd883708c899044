"""Frozen, validated specs, and the identity of a run. Imports no torch.

The identity is a hash of what decides a run's numbers: the canonical form of its resolved spec.
How a run is executed (device, threads, caches, packing) is no part of it.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from skd.common.frozen import FrozenModel, added_later, canonical, digest

FOLDER_DATASET = "imagefolder"  # the one data set that a sheet describes


class FolderSpec(FrozenModel):
    """Photos in folders by class, ``train/CLASS/*`` and ``val/CLASS/*``, and what to expect."""

    path: str = Field(description="of the folder with train and val, relative to SKD_DATA")
    classes: PositiveInt
    train_images: PositiveInt
    test_images: PositiveInt = Field(description="photos in val")
    size: PositiveInt = Field(224, description="height and width of the views, in pixels")

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if not path or PurePath(path).is_absolute() or ".." in PurePath(path).parts:
            raise ValueError(
                f"'{path}' is no folder below SKD_DATA; name it relative to that, so that the "
                "sheet holds on every machine"
            )
        return path


class DatasetSpec(FrozenModel):
    """Which images are trained on, and which are evaluated."""

    name: str
    split: Literal["test", "validation"] = Field(
        "test",
        description="test: train on all training images. validation: the fixed stratified split "
        "of the training images, for choosing settings without the test set",
    )
    train_limit: PositiveInt | None = Field(
        None, description="train on a fixed choice of so many images, classes balanced"
    )
    folder: FolderSpec | None = added_later(
        None, neutral=None, description=f"where the photos of {FOLDER_DATASET} are; of no other"
    )

    @model_validator(mode="after")
    def _check_folder(self) -> Self:
        if self.name == FOLDER_DATASET and self.folder is None:
            raise ValueError(
                f"{FOLDER_DATASET} needs its folder: "
                "{path: …, classes: …, train_images: …, test_images: …}"
            )
        if self.name != FOLDER_DATASET and self.folder is not None:
            raise ValueError(
                f"folder: only {FOLDER_DATASET} has one; where {self.name} lies is known"
            )
        return self


class Recipe(FrozenModel):
    """How a network is trained. The defaults are the field's common CIFAR-100 recipe."""

    epochs: PositiveInt = 240
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 0.05
    milestones: tuple[PositiveInt, ...] = Field(
        (150, 180, 210), description="epochs after which the learning rate is multiplied"
    )
    learning_rate_decay: PositiveFloat = 0.1
    momentum: NonNegativeFloat = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4
    last_batch: Literal["keep", "drop"] = added_later(
        "keep",
        neutral="keep",
        description="what becomes of an epoch's last images, where they do not fill a batch",
    )
    bn_batch: PositiveInt | None = added_later(
        None,
        neutral=None,
        description="images whose statistics BatchNorm takes together in training, however a batch "
        "is divided among processes; none: the whole batch",
    )

    @model_validator(mode="after")
    def _check_milestones(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise strictly, got {list(self.milestones)}")
        return self

    def steps_per_epoch(self, images: int) -> int:
        """Return the batches in an epoch over so many training images."""
        full, rest = divmod(images, self.batch_size)
        return full + (rest > 0 and self.last_batch == "keep")

    def partition_problem(self, parts: int) -> str | None:
        """Return why a batch cannot be seen in so many equal parts by the same recipe, or none."""
        size, group = self.batch_size, self.bn_batch
        if parts == 1:
            return None
        if group is None or size % group:
            return (
                "the recipe's bn_batch must say how many images BatchNorm takes together, and "
                f"divide the batch of {size}"
            )
        if size % (parts * group):
            groups = size // group
            allowed = ", ".join(str(n) for n in range(1, groups + 1) if groups % n == 0)
            return (
                f"{groups} groups of {group} (bn_batch) cannot be shared out evenly; "
                f"processes times parts may be: {allowed}"
            )
        if self.last_batch == "keep":
            return "an epoch's last batch is smaller; set last_batch: drop"
        return None


class TermSpec(FrozenModel):
    """One loss term of a method, resolved: its class's name and version, and all its settings."""

    term: str
    version: PositiveInt
    settings: dict[str, Any]


class SimplifierSpec(FrozenModel):
    """SKD's simplifier, resolved."""

    version: PositiveInt
    settings: dict[str, Any]


class MethodSpec(FrozenModel):
    """A list of weighted terms, and the simplifier that some of them see the teacher through."""

    terms: tuple[TermSpec, ...]
    simplifier: SimplifierSpec | None = None


class ImportedTeacher(FrozenModel):
    """A teacher whose weights come from a file. Its identity is the file's content."""

    kind: Literal["imported"] = "imported"
    network: str
    dataset: DatasetSpec
    sha256: str

    @property
    def identity(self) -> str:
        """Hash of network, data set and file content."""
        return digest(canonical(self))


class TrainedTeacher(FrozenModel):
    """A teacher trained here."""

    kind: Literal["trained"] = "trained"
    run: RunSpec

    @property
    def network(self) -> str:
        """The teacher's network."""
        return self.run.network

    @property
    def dataset(self) -> DatasetSpec:
        """The images that it is trained and measured on."""
        return self.run.dataset

    @property
    def identity(self) -> str:
        """The identity of the run that trains it."""
        return self.run.identity


TeacherSpec = Annotated[ImportedTeacher | TrainedTeacher, Field(discriminator="kind")]


class RunSpec(FrozenModel):
    """One training, fully resolved. ``network`` is the one that is trained."""

    dataset: DatasetSpec
    network: str
    teacher: TeacherSpec | None = None
    method: MethodSpec
    recipe: Recipe
    seed: NonNegativeInt

    @property
    def identity(self) -> str:
        """Hash of everything that decides the numbers; the teacher enters by its own identity."""
        data = canonical(self)
        data["teacher"] = self.teacher.identity if self.teacher else None
        return digest(data)


TrainedTeacher.model_rebuild()
