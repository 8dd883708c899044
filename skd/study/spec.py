"""Frozen, validated specs, and the identity of a run. Imports no torch.

The identity is a hash of the canonical form of the resolved spec, which decides a run's numbers.
How a run is executed (device, threads, caches, lanes) is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from skd.common.wrapped_networks import network_label

FOLDER_DATASET = "imagefolder"  # the data set whose folder a sheet describes
CROSS_ENTROPY = "cross_entropy"  # the term that every method has
SIMPLIFIER = "simplifier"  # SKD's transformation of the teacher's logits
# Settings of a recipe that only one optimiser or one schedule has: (setting, value).
SETTINGS_OF_A_CHOICE = {
    "momentum": ("optimizer", "sgd"),
    "nesterov": ("optimizer", "sgd"),
    "betas": ("optimizer", "adamw"),
    "eps": ("optimizer", "adamw"),
    "milestones": ("schedule", "steps"),
    "learning_rate_decay": ("schedule", "steps"),
    "minimum_learning_rate": ("schedule", "cosine"),
}


class FolderSpec(FrozenModel):
    """Photos in one folder per class, ``train/CLASS/*`` and ``val/CLASS/*``, and their numbers."""

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
                f"'{path}' is not a folder below SKD_DATA; write it relative to SKD_DATA, so that "
                "the sheet works on every machine"
            )
        return path


class DatasetSpec(FrozenModel):
    """The images for training and those for evaluation."""

    name: str
    split: Literal["test", "validation"] = Field(
        "test",
        description="test: train on all training images. validation: the fixed stratified split "
        "of the training images, for choosing settings without the test set",
    )
    train_limit: PositiveInt | None = Field(
        None, description="train on a fixed, class-balanced subset with this number of images"
    )
    folder: FolderSpec | None = added_later(
        None, neutral=None, description=f"the folder of photos; only {FOLDER_DATASET} has one"
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
                f"folder: only {FOLDER_DATASET} has one; {self.name} has a fixed place"
            )
        return self


class Recipe(FrozenModel):
    """Hyperparameters of a training. The defaults are the field's common CIFAR-100 recipe."""

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
        description="whether to keep an epoch's last batch if it is not full",
    )
    bn_batch: PositiveInt | None = added_later(
        None,
        neutral=None,
        description="number of images over which BatchNorm computes its statistics in training, "
        "independent of the number of processes; none: the whole batch",
    )
    optimizer: Literal["sgd", "adamw"] = added_later(
        "sgd", neutral="sgd", description="sgd: with momentum; adamw: Adam, decoupled weight decay"
    )
    betas: tuple[NonNegativeFloat, NonNegativeFloat] = added_later(
        (0.9, 0.999), neutral=(0.9, 0.999), description="AdamW's decay rates of its two averages"
    )
    eps: PositiveFloat = added_later(
        1e-8, neutral=1e-8, description="AdamW's addition to the denominator"
    )
    schedule: Literal["steps", "cosine"] = added_later(
        "steps",
        neutral="steps",
        description="of the learning rate; steps: decayed after each milestone; cosine: half a "
        "cosine from learning_rate towards minimum_learning_rate",
    )
    minimum_learning_rate: NonNegativeFloat = added_later(
        0.0, neutral=0.0, description="the value that the cosine would reach after the last epoch"
    )
    warmup_epochs: NonNegativeInt = added_later(
        0, neutral=0, description="epochs over which the learning rate rises linearly"
    )
    augmentation: Literal["standard", "trivialaugment", "randaugment"] = added_later(
        "standard",
        neutral="standard",
        description="standard: crops and flips. trivialaugment (2103.10158, wide) and randaugment "
        "(1909.13719) follow them",
    )
    randaugment_operations: PositiveInt = added_later(
        2, neutral=2, description="n, the number of operations of augmentation: randaugment"
    )
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = added_later(
        9, neutral=9, description="m, the magnitude of augmentation: randaugment, 0 to 30"
    )
    mixing: Literal["none", "mixup", "cutmix"] = added_later(
        "none",
        neutral="none",
        description="mixes pairs of images and their losses: mixup (1710.09412), cutmix "
        "(1905.04899)",
    )
    mixing_alpha: PositiveFloat = added_later(
        1.0, neutral=1.0, description="alpha of mixing: shares follow Beta(alpha, alpha)"
    )

    @model_validator(mode="after")
    def _check_milestones(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase strictly, got {list(self.milestones)}")
        return self

    def without_effect(self) -> dict[str, str]:
        """Return the settings that this optimiser and schedule do not have, with who has them."""
        return {
            name: f"{key}: {value}"
            for name, (key, value) in SETTINGS_OF_A_CHOICE.items()
            if getattr(self, key) != value
        }

    def steps_per_epoch(self, images: int) -> int:
        """Return the number of batches in an epoch over ``images`` training images."""
        full, rest = divmod(images, self.batch_size)
        return full + (rest > 0 and self.last_batch == "keep")

    def stored_views_problem(self) -> str | None:
        """Return why a teacher's outputs on the recipe's views cannot be stored, or ``None``."""
        if self.mixing != "none":
            return f"mixing: {self.mixing} mixes every image with others"
        if self.augmentation != "standard":
            return f"augmentation: {self.augmentation} makes an unlimited number of views"
        return None

    def partition_problem(self, parts: int) -> str | None:
        """Return why a batch cannot be split into ``parts`` equal parts; ``None`` if it can."""
        size, group = self.batch_size, self.bn_batch
        if parts == 1:
            return None
        if group is None or size % group:
            return (
                f"the recipe needs a bn_batch that divides the batch of {size}: the number of "
                "images over which BatchNorm computes its statistics"
            )
        if size % (parts * group):
            groups = size // group
            allowed = ", ".join(str(n) for n in range(1, groups + 1) if groups % n == 0)
            return (
                f"{groups} groups of {group} (bn_batch) cannot be distributed evenly; "
                f"processes times parts may be: {allowed}"
            )
        if self.last_batch == "keep":
            return "an epoch's last batch is smaller; set last_batch: drop"
        return None


class TermSpec(FrozenModel):
    """One resolved loss term of a method: name and version of its class, and all settings."""

    term: str
    version: PositiveInt
    settings: dict[str, Any]


class SimplifierSpec(FrozenModel):
    """SKD's simplifier, resolved."""

    version: PositiveInt
    settings: dict[str, Any]


class TransformationSpec(SimplifierSpec):
    """A resolved transformation of the teacher's logits: name and version of its class, settings.

    The simplifier's name is not in the canonical form of a method.
    """

    name: str


class MethodSpec(FrozenModel):
    """The weighted terms of a method, and the transformations of its teacher's logits.

    The simplifier has a field of its own, which is older than the others.
    """

    terms: tuple[TermSpec, ...]
    simplifier: SimplifierSpec | None = None
    other_transformations: tuple[TransformationSpec, ...] = added_later((), neutral=())

    @classmethod
    def of(
        cls, terms: Iterable[TermSpec], transformations: Iterable[TransformationSpec]
    ) -> MethodSpec:
        """Return the method with these terms and transformations."""
        parts = {part.name: part for part in transformations}
        simplifier = parts.pop(SIMPLIFIER, None)
        return cls(
            terms=tuple(terms),
            simplifier=simplifier
            and SimplifierSpec(version=simplifier.version, settings=simplifier.settings),
            other_transformations=tuple(parts.values()),
        )

    def with_raw_logits(self) -> MethodSpec:
        """Return the same terms on the teacher's raw logits."""
        terms = (
            term.model_copy(update={"settings": {**term.settings, "teacher": "raw"}})
            for term in self.terms
        )
        return MethodSpec(terms=tuple(terms))

    @property
    def transformations(self) -> tuple[TransformationSpec, ...]:
        """The transformations of the teacher's logits, the simplifier first."""
        if self.simplifier is None:
            return self.other_transformations
        return (
            TransformationSpec(name=SIMPLIFIER, **dict(self.simplifier)),
            *self.other_transformations,
        )


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
    """A teacher that a run of this project trains."""

    kind: Literal["trained"] = "trained"
    run: RunSpec

    @property
    def network(self) -> str:
        """The teacher's network."""
        return self.run.network

    @property
    def dataset(self) -> DatasetSpec:
        """The images for its training and evaluation."""
        return self.run.dataset

    @property
    def identity(self) -> str:
        """The identity of the run that trains it."""
        return self.run.identity

    @property
    def rules(self) -> tuple[str, ...]:
        """The terms that train it beside cross-entropy; empty for a usual teacher."""
        return tuple(term.term for term in self.run.method.terms if term.term != CROSS_ENTROPY)

    @property
    def origin(self) -> str:
        """How it is trained, for users."""
        how = f" by {'+'.join(self.rules)}" if self.rules else ""
        suits = f" for {network_label(self.run.partner)}" if self.run.partner else ""
        return f"trained here{how}{suits}, seed {self.run.seed}"


TeacherSpec = Annotated[ImportedTeacher | TrainedTeacher, Field(discriminator="kind")]


class RunSpec(FrozenModel):
    """One fully resolved training; ``network`` is the student, or a network trained alone."""

    dataset: DatasetSpec
    network: str
    teacher: TeacherSpec | None = None
    method: MethodSpec
    recipe: Recipe
    seed: NonNegativeInt
    partner: str | None = added_later(
        None,
        neutral=None,
        description="network of the student that a teacher is trained to suit",
    )

    @property
    def identity(self) -> str:
        """Hash of everything that decides the numbers.

        In it, the teacher is represented by its identity.
        """
        data = canonical(self)
        data["teacher"] = self.teacher.identity if self.teacher else None
        return digest(data)


TrainedTeacher.model_rebuild()
