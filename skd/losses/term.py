"""The interface of a loss term.

A term is one class in one file of ``baselines/``, and the file's name is the term's name. It
declares its settings (a typed model with defaults) and what it reads of the teacher, and returns a
scalar loss. The training loop knows terms by this interface only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator
from torch import Tensor, nn

from skd.common.frozen import FrozenModel, added_later
from skd.losses.teacher_modules import TeacherModules
from skd.models import build_model
from skd.models.network import FeatureNetwork, Outputs, dry_pass
from skd.randomness import Draws, seeded

# What a loss reads of the teacher. Outputs: the logits, the pooled features, or all feature maps
# and the pooled features. Modules (`TeacherModules`): the classifier, the BatchNorm before each
# pre-activation, the layers after a stage. `strong_view`: the loss also reads `Batch.strong`.
Need = Literal[
    "teacher_logits",
    "teacher_pooled",
    "teacher_features",
    "teacher_classifier",
    "teacher_batch_norms",
    "teacher_stages",
    "strong_view",
]
MODULE_NEEDS = frozenset({"teacher_classifier", "teacher_batch_norms", "teacher_stages"})
RAW = "raw"  # the value of a term's setting `teacher` for logits that are not transformed


class Peers(Protocol):
    """The processes that train one run together, each with its share of a step's batch.

    All processes must call the same methods in the same order.
    """

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in the batch's order, (B, …), without a gradient.

        Each process must pass the same number of rows.
        """

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the value of the first process, which has the batch's first images."""


class Alone:
    """The peers of a run in one process, which has the whole batch."""

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows."""
        return rows

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value


@dataclass(frozen=True, eq=False)
class Classification:
    """The output of a term that replaces the student's classifier.

    Attributes:
        logits: (B, C).
        features: what the logits are computed from, for the term's own loss.
    """

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class StrongView:
    """Outputs on the second, strong view of each image.

    Attributes:
        student: the student's outputs, with gradients, from a forward pass of their own.
        teacher: the frozen teacher's outputs; ``None`` in a run without a teacher. The logits are
            those that the term's settings select.
    """

    student: Outputs
    teacher: Outputs | None


@dataclass(frozen=True)
class Batch:
    """The batch of a training step, or a process's share or part of it.

    Attributes:
        student: the student's outputs, with gradients.
        teacher: the frozen teacher's outputs on the same views; ``None`` if no term needs them. The
            logits are raw or transformed, depending on the term's settings. Transformed logits have
            gradients to the transformation.
        target: class indices, (B,).
        indices: indices of the images in the training set, (B,).
        epoch: 1-based. A term whose forward pass reads it must declare `Term.reads_epoch`. It is
            better to set buffers in `Term.begin_epoch`.
        draws: the step's random generators, the only allowed source of randomness.
        peers: the processes that share the step's batch.
        first: index of the first image within the step's batch; positive in later parts.
        second_target: with the recipe's `mixing`, class indices of the images mixed in, (B,); else
            ``None``. A term that reads `target` must then read this too, and declare
            `Term.reads_second_target`.
        mix: with mixing, each first image's share of the mixed image, (B,); else ``None``.
        strong: outputs on a second, strong view of each image; ``None`` if no term needs
            `strong_view`.
        classification: what the term that replaces the student's classifier returned from
            `Term.classify`; its logits are the student's. ``None`` without such a term.
    """

    student: Outputs
    teacher: Outputs | None
    target: Tensor
    indices: Tensor
    epoch: int
    draws: Draws
    peers: Peers = field(default_factory=Alone)
    first: int = 0
    second_target: Tensor | None = None
    mix: Tensor | None = None
    strong: StrongView | None = None
    classification: Classification | None = None

    @property
    def main_target(self) -> Tensor:
        """Class of the image with the larger share, (B,); without mixing, the target."""
        return main_target(self.target, self.second_target, self.mix)


def main_target(target: Tensor, second_target: Tensor | None, mix: Tensor | None) -> Tensor:
    """Return the class of the image with the larger share, (B,); the first one's for equal shares.

    Arguments as the attributes of `Batch`.
    """
    return target if mix is None else torch.where(mix >= 0.5, target, second_target)


@dataclass(frozen=True)
class NetworkReference:
    """A network that a term may read but does not own.

    It is not a module: a term that stores it neither trains the network twice nor adds it to its
    own state.
    """

    module: FeatureNetwork


@dataclass(frozen=True)
class Partner:
    """The student that a teacher is trained to suit.

    Attributes:
        name: of the student's network.
        outputs: of one such network on some images, for their shapes only.
        build: returns a new network with fresh weights, which the term may train.
    """

    name: str
    outputs: Outputs
    build: Callable[[], FeatureNetwork]

    @classmethod
    def of(cls, name: str, num_classes: int, images: Tensor) -> Partner:
        """Return the student with a network's name, with its outputs on some images."""

        def build() -> FeatureNetwork:
            return build_model(name, num_classes)

        with seeded(0, "shapes"):
            network = build().to(images.device)
        return cls(name, dry_pass(network, images), build)


@dataclass(frozen=True)
class TermContext:
    """The facts about a run from which a term or a transformation builds its modules.

    Attributes:
        num_classes: C.
        train_labels: class index of every training image, (N,); image i of ``Batch.indices`` has
            ``train_labels[i]``.
        seed: the run's seed; the initial weights of the term's modules are drawn from it.
        student: outputs of the student on some images, for their shapes only.
        teacher: outputs of the teacher, for their shapes only; ``None`` without a teacher.
        group: number of consecutive images that are never separated when a batch is divided among
            processes or into parts (the recipe's ``bn_batch``); ``None`` is the whole batch.
        teacher_modules: the teacher's modules that the class declares in its `needs`; ``None``
            without a teacher.
        network: the network that is trained, for losses on its weights.
        partner: the student that the trained network is to suit; ``None`` if it has none.
        epochs: number of epochs of the training; ``None`` if it is not known.
    """

    num_classes: int
    train_labels: Tensor
    seed: int
    student: Outputs
    teacher: Outputs | None
    group: int | None = None
    teacher_modules: TeacherModules | None = None
    network: NetworkReference | None = None
    partner: Partner | None = None
    epochs: int | None = None

    def restrict(self, needs: Iterable[str]) -> TermContext:
        """Return the context for a class with some needs."""
        modules = self.teacher_modules and self.teacher_modules.restrict(needs)
        return replace(self, teacher_modules=modules)


class TermSettings(FrozenModel):
    """The settings of every term. A term's own class adds settings and changes defaults."""

    weight: float = Field(1.0, description="factor of this term in the sum")
    warmup_epochs: NonNegativeInt = Field(
        0, description="number of epochs over which the weight rises linearly to its full value"
    )
    teacher: str = Field(
        RAW,
        description="the teacher's logits as they are (raw), simplified (by SKD's simplifier), or "
        "the name of another transformation",
    )
    standardise: bool = added_later(
        False,
        neutral=False,
        description="z-score the teacher's and the student's logits before the term (2403.01427)",
    )
    cross_entropy: float = Field(
        1.0,
        description="weight of cross-entropy beside this term; a method uses its terms' largest",
    )
    learning_rate_multiplier: PositiveFloat = added_later(
        1.0,
        neutral=1.0,
        description="factor on the student's learning rate for this term's parameters",
    )
    weight_decay: NonNegativeFloat | None = added_later(
        None,
        neutral=None,
        description="weight decay of this term's parameters; none: the recipe's",
    )

    @field_validator("weight", "cross_entropy", check_fields=True)
    @classmethod
    def _check_weight(cls, weight: float) -> float:
        if weight < 0:  # a validator, so that it also applies if a term redefines the field
            raise ValueError(f"must be 0 or more, got {weight}")
        return weight


class Term(nn.Module, ABC):
    """A loss term. Its parameters, if it has any, are trained with the student's.

    Its persistent buffers are part of the checkpoint. ``__init__`` raises `UnfitError` for networks
    that the term cannot use; a study with such a cell is an error before it starts.
    """

    Settings: ClassVar[type[TermSettings]] = TermSettings
    needs: ClassVar[frozenset[Need]] = frozenset()
    version: ClassVar[int] = 1  # part of a run's identity: raise it when the values change
    reads_epoch: ClassVar[bool] = False  # whether `forward` reads `Batch.epoch`
    # Whether the loss depends on `Batch.target`; a method with such a term is refused with a recipe
    # that mixes images, unless the term reads the classes of both images.
    reads_target: ClassVar[bool] = True
    reads_second_target: ClassVar[bool] = False
    # Whether the loss is not the mean of losses of single images; if so, a batch is not divided.
    mixes_images: ClassVar[bool] = False
    # Whether `classify` replaces the student's classifier, in training and in evaluation.
    replaces_classifier: ClassVar[bool] = False
    # Whether the trained network is a teacher that is to suit a student, `TermContext.partner`.
    uses_partner: ClassVar[bool] = False

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the unweighted loss, a scalar: the mean over the batch.

        If a step's batch is divided, this is called once for each part.
        """

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalars to record, as means over each epoch. Called after `forward`, no gradient.

        Their names in the record start with the term's name and a slash.
        """
        return {}

    def classify(self, student: Outputs) -> Classification:
        """Return the logits (B, C) that replace the student's, from its other outputs.

        Only for a class that sets `replaces_classifier`. The student's own classifier is then
        neither trained nor used. Accuracies are those of the returned logits, and the term's state
        is stored with the run. In training, this is called once before `forward`, which finds the
        result in `Batch.classification`; in evaluation, it is called alone.
        """
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Set buffers to their values in an epoch (1-based), in place.

        If the loss depends on the epoch only by such buffers, a recorded step stays valid. The
        buffers must not be persistent: a resumed run calls this method again.
        """

    def after_step(self, peers: Peers) -> None:
        """Update state once per step, after its last part: memory banks, for instance."""

    def multiply_adds(self) -> int | None:
        """Return the multiply-adds per image, or ``None`` to count them by modules and buffers.

        The default count has each weight of a linear layer once, each buffer element once (for
        memory banks), and convolutions by the sizes of their maps.
        """
        return None

    def weight(self, epoch: int) -> float:
        """Return the term's factor in an epoch (1-based), with its warm-up."""
        warmup = self.settings.warmup_epochs
        return self.settings.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)
