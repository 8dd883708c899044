"""The contract of a loss term.

A term is one class in one file of ``baselines/``; its name is the file's. It states its settings
(a typed model with defaults) and what it needs, and returns a scalar loss. The training loop knows
terms by this contract alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from pydantic import Field, NonNegativeInt, field_validator
from torch import Tensor, nn

from skd.common.frozen import FrozenModel, added_later
from skd.models.network import Outputs
from skd.randomness import Draws

# What a term reads of the teacher's outputs: `logits`, `pooled`, or the maps as well.
Need = Literal["teacher_logits", "teacher_pooled", "teacher_features"]


class Peers(Protocol):
    """The processes that train one run together, each on its share of a step's batch."""

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return all processes' rows, (B, …), in the batch's order: each has as many, no gradient.

        Every process must ask at the same place.
        """

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the first process's value: it has the batch's first images. Likewise."""


class Alone:
    """One process: it has the whole batch."""

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows."""
        return rows

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value


@dataclass(frozen=True)
class Batch:
    """One training step's batch, or one process's share or part of it, as terms see it.

    Attributes:
        student: the student's outputs; gradients flow.
        teacher: the frozen teacher's outputs on the same views; none where no term needs them.
            Its logits are the raw or the simplified ones, as the term's settings say. Simplified
            ones carry the simplifier's gradient.
        target: class indices, (B,).
        indices: places of the images in the training set, (B,).
        epoch: 1-based. A term whose forward pass reads it says so (`Term.reads_epoch`), or does
            without by `Term.begin_epoch`.
        draws: what the step may draw from; nothing else is random.
        peers: the processes that share the step's batch.
        first: place of the first image in the step's batch: not 0 in later parts.
    """

    student: Outputs
    teacher: Outputs | None
    target: Tensor
    indices: Tensor
    epoch: int
    draws: Draws
    peers: Peers = field(default_factory=Alone)
    first: int = 0


@dataclass(frozen=True)
class TermContext:
    """What a term may size its modules by.

    Attributes:
        num_classes: C.
        train_labels: class index of every training image, (N,); place i is image i of
            ``Batch.indices``.
        seed: of the run; the initial weights of the term's modules are drawn from it.
        student: outputs of a dry pass of the student, for shapes only.
        teacher: likewise of the teacher; none where there is none.
        group: images of a batch that are always seen together, however the batch is divided among
            processes or parts: the recipe's ``bn_batch``; none: the whole batch.
    """

    num_classes: int
    train_labels: Tensor
    seed: int
    student: Outputs
    teacher: Outputs | None
    group: int | None = None


class TermSettings(FrozenModel):
    """Settings that every term has. A term's own class adds to them and sets its defaults."""

    weight: float = Field(1.0, description="factor of this term in the sum")
    warmup_epochs: NonNegativeInt = Field(
        0, description="the weight rises linearly to its full value over so many epochs"
    )
    teacher: Literal["raw", "simplified"] = Field(
        "raw", description="teacher logits as they are, or through SKD's simplifier"
    )
    standardise: bool = added_later(
        False,
        neutral=False,
        description="z-score teacher's and student's logits before the term (2403.01427)",
    )
    cross_entropy: float = Field(
        1.0,
        description="weight of the cross-entropy beside this term; of several, the largest counts",
    )

    @field_validator("weight", "cross_entropy", check_fields=True)
    @classmethod
    def _check_weight(cls, weight: float) -> float:
        if weight < 0:  # here, so that a term's own default keeps the check
            raise ValueError(f"must be 0 or more, got {weight}")
        return weight


class Term(nn.Module, ABC):
    """One loss term. Its parameters, if it has any, train with the student's.

    Its buffers are part of the checkpoint. Raise `UnfitError` in ``__init__`` for a pair of
    networks that the term cannot work on: a study with such a cell is refused before it starts.
    """

    Settings: ClassVar[type[TermSettings]] = TermSettings
    needs: ClassVar[frozenset[Need]] = frozenset()
    version: ClassVar[int] = 1  # part of a run's identity: raise it when the values change
    reads_epoch: ClassVar[bool] = False  # whether `forward` reads the batch's epoch
    # Whether the loss is more than the mean of what each image gives alone: such a batch cannot be
    # divided.
    mixes_images: ClassVar[bool] = False

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the loss before its weight, a scalar: the mean over the batch.

        Where a step's batch is divided, this is called once for each part.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Set buffers to what they are in an epoch (1-based), in place.

        A loss that changes with the epoch by such a buffer need not be recorded anew. The buffers
        are not persistent: a resumed run calls this again.
        """

    def after_step(self, peers: Peers) -> None:
        """Do what is due once a step, after its last part: memory banks move here."""

    def multiply_adds(self) -> int | None:
        """Return the multiply-adds of one image, or none where its modules and buffers say them.

        Each weight of a linear layer counts once then, and each number of a buffer, as of a bank
        that a batch is scored against; convolutions by their maps' sizes.
        """
        return None

    def weight(self, epoch: int) -> float:
        """Return the term's factor in an epoch (1-based), warm-up included."""
        warmup = self.settings.warmup_epochs
        return self.settings.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)
