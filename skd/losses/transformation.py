"""The interface of a transformation of the teacher's logits.

A transformation is one class in one file of ``baselines/``, and the file's name is its name. SKD's
simplifier is one. A term whose setting `teacher` names it gets the transformed logits, so that any
loss on teacher logits combines with it. Its parameters are trained with the student's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from skd.common.frozen import FrozenModel, added_later
from skd.losses.term import Batch, Need, TermContext


class TransformationSettings(FrozenModel):
    """The settings of every transformation. Its own class adds settings and changes defaults."""

    learning_rate_multiplier: PositiveFloat = Field(
        1.0, description="factor on the student's learning rate for its parameters"
    )
    weight_decay: NonNegativeFloat | None = added_later(
        None, neutral=None, description="weight decay of its parameters; none: the recipe's"
    )


class Transformation(nn.Module, ABC):
    """A transformation of the teacher's logits, with parameters that are trained.

    Its state dict is stored with a finished run. ``__init__`` raises `UnfitError` for networks that
    it cannot be used with; a study with such a cell is an error before it starts.
    """

    Settings: ClassVar[type[TransformationSettings]] = TransformationSettings
    needs: ClassVar[frozenset[Need]] = frozenset({"teacher_logits"})
    version: ClassVar[int] = 1  # part of a run's identity: raise it when the values change
    # Whether the logits or the own loss depend on `Batch.target`: as in `Term`.
    reads_target: ClassVar[bool] = True
    reads_second_target: ClassVar[bool] = False
    # The value of a term's setting `teacher` that selects it; by default the file's name.
    logits_name: ClassVar[str | None] = None
    # What precedes its diagnostics' names in records; by default the file's name and a slash.
    diagnostics_prefix: ClassVar[str | None] = None

    def __init__(self, settings: TransformationSettings, context: TermContext) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the transformed teacher logits, (B, C).

        ``batch.teacher`` has the teacher's raw outputs, as far as the class `needs` them.
        """

    def for_student(self, logits: Tensor) -> Tensor:
        """Return the transformed logits for the student's losses: the same, or detached."""
        return logits

    def own_loss(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Return a loss that is added to the student's with weight 1, or ``None``.

        Without one, the transformation is trained by the losses that read its logits.

        Args:
            batch: as in `forward`.
            logits: the transformed logits, before `for_student`.
        """
        return None

    def diagnostics(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Return scalars to record, as means over each epoch. Called without gradients."""
        return {}

    def begin_epoch(self, epoch: int) -> None:
        """Set buffers to their values in an epoch (1-based), in place: see `Term.begin_epoch`."""

    def partition_problem(self, part_size: int) -> str | None:
        """Return why a batch cannot be divided into parts of some size; ``None`` if it can.

        It can if the logits of an image do not depend on the batch's other images.

        Args:
            part_size: images in each part.
        """
        return None
