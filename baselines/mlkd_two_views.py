"""MLKD as its authors train it, on a weak and a strong view of each image (Jin et al., CVPR 2023).

From their code, Jin-Ying/Multi-Level-Logit-Distillation: mdistiller/distillers/KD_ours.py,
engine/cfg.py. The weak view is the recipe's view of the image. Its cross-entropy is the method's
own term; the rest is here.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from baselines.kd import kd_loss
from baselines.mlkd import mlkd_loss
from skd.terms import Batch, StrongView, Term, TermSettings

Temperatures = tuple[PositiveFloat, ...]


def instance_alignment(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: Temperatures
) -> Tensor:
    """Return the sum over T of T²·KL(softmax(teacher/T) ‖ softmax(student/T)), batch mean.

    In float32 at least. Without temperatures, the sum is 0.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperatures: each T > 0.
    """
    losses = [kd_loss(student_logits, teacher_logits, t) for t in temperatures]
    return torch.stack(losses).sum() if losses else upcast(student_logits).new_zeros(())


class MLKDTwoViews(Term):
    """0.1·(CE + CE on the strong view) + 0.9·(MLKD's alignments), in their authors' code.

    On the weak view: the sum over T = 2…6 of instance, batch and class alignment, with the masks of
    `mlkd_loss`. On the strong view: instance alignment at T = 3, 4 and 5, without a mask. Their
    code means to add T = 2 and 6 there, but computes them on the weak view: it has them twice.
    Batch and class alignment on the strong view are computed there and not used.
    """

    class Settings(TermSettings):
        """MLKD's settings."""

        cross_entropy: float = 0.1
        strong_cross_entropy: NonNegativeFloat = Field(
            0.1, description="weight of cross-entropy on the strong view; on ImageNet 0.5"
        )
        alignment: NonNegativeFloat = Field(
            0.9, description="weight of all alignments; on ImageNet 0.5"
        )
        temperatures: Annotated[Temperatures, Field(min_length=1)] = Field(
            (2.0, 3.0, 4.0, 5.0, 6.0),
            description="T on the weak view; on ImageNet the authors have 1 instead of 4",
        )
        strong_temperatures: Temperatures = Field(
            (3.0, 4.0, 5.0), description="T of the instance alignment on the strong view"
        )
        repeated_temperatures: Temperatures = Field(
            (2.0, 6.0),
            description="T of a second instance alignment on the weak view, without a mask; [] and "
            "strong_temperatures 2 to 6 is what the authors' code seems to intend",
        )

    needs = frozenset({"teacher_logits", "strong_view"})
    mixes_images = True  # the batch and class losses compare images

    def forward(self, batch: Batch) -> Tensor:
        """Return MLKD's loss on raw or transformed teacher logits, depending on the settings."""
        settings, strong = self.settings, batch.strong
        student, teacher = batch.student.logits, batch.teacher.logits
        alignment = (
            mlkd_loss(student, teacher, settings.temperatures)
            + instance_alignment(student, teacher, settings.repeated_temperatures)
            + self._strong_alignment(strong)
        )
        strong_entropy = F.cross_entropy(upcast(strong.student.logits), batch.target)
        return settings.alignment * alignment + settings.strong_cross_entropy * strong_entropy

    def _strong_alignment(self, strong: StrongView) -> Tensor:
        return instance_alignment(
            strong.student.logits, strong.teacher.logits, self.settings.strong_temperatures
        )
