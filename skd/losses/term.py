"""The interface of a loss term.

A term is one class in one file of ``baselines/``, and the file's name is the term's name. It
declares its settings (a typed model with defaults) and what it reads of the teacher, and returns a
scalar loss. The training loop knows terms by this interface only.
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

# What a term reads of the teacher's outputs: the logits, the pooled features, or all feature maps
# and the pooled features.
Need = Literal["teacher_logits", "teacher_pooled", "teacher_features"]


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


@dataclass(frozen=True)
class Batch:
    """The batch of a training step, or a process's share or part of it.

    Attributes:
        student: the student's outputs, with gradients.
        teacher: the frozen teacher's outputs on the same views; ``None`` if no term needs them. The
            logits are raw or simplified, depending on the term's settings. Simplified logits have
            gradients to the simplifier.
        target: class indices, (B,).
        indices: indices of the images in the training set, (B,).
        epoch: 1-based. A term whose forward pass reads it must declare `Term.reads_epoch`. It is
            better to set buffers in `Term.begin_epoch`.
        draws: the step's random generators, the only allowed source of randomness.
        peers: the processes that share the step's batch.
        first: index of the first image within the step's batch; positive in later parts.
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
    """The facts about a run from which a term builds its modules.

    Attributes:
        num_classes: C.
        train_labels: class index of every training image, (N,); image i of ``Batch.indices`` has
            ``train_labels[i]``.
        seed: the run's seed; the initial weights of the term's modules are drawn from it.
        student: outputs of the student on some images, for their shapes only.
        teacher: outputs of the teacher, for their shapes only; ``None`` without a teacher.
        group: number of consecutive images that are never separated when a batch is divided among
            processes or into parts (the recipe's ``bn_batch``); ``None`` is the whole batch.
    """

    num_classes: int
    train_labels: Tensor
    seed: int
    student: Outputs
    teacher: Outputs | None
    group: int | None = None


class TermSettings(FrozenModel):
    """The settings of every term. A term's own class adds settings and changes defaults."""

    weight: float = Field(1.0, description="factor of this term in the sum")
    warmup_epochs: NonNegativeInt = Field(
        0, description="number of epochs over which the weight rises linearly to its full value"
    )
    teacher: Literal["raw", "simplified"] = Field(
        "raw", description="the teacher's logits as they are, or transformed by SKD's simplifier"
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
    # Whether the loss is not the mean of losses of single images; if so, a batch is not divided.
    mixes_images: ClassVar[bool] = False

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the unweighted loss, a scalar: the mean over the batch.

        If a step's batch is divided, this is called once for each part.
        """

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
