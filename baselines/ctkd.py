"""CTKD: KD with a temperature that learns adversarially (Li et al., AAAI 2023, 2211.16231)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings


def ctkd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: Tensor) -> Tensor:
    """Return T²·KL(softmax(teacher/T) ‖ softmax(student/T)), mean over the batch, for a learnt T.

    In float32 at least. Gradients flow to both sides and to the temperature, also through T².

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperature: T > 0, a scalar.
    """
    student, teacher = (
        F.log_softmax(upcast(logits) / temperature, 1)
        for logits in (student_logits, teacher_logits)
    )
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def reversal_strength(epoch: int, curriculum_epochs: int) -> float:
    """Return λ, which rises from 0 before epoch 1 along half a cosine to 1.

    Args:
        epoch: 1-based.
        curriculum_epochs: the first epoch in which λ is 1.
    """
    return (1 - math.cos(math.pi * min(epoch / curriculum_epochs, 1.0))) / 2


def reverse_gradient(value: Tensor, strength: Tensor | float) -> Tensor:
    """Return the value; the backward pass multiplies its gradient by -strength."""
    detached = value.detach()
    return detached - strength * (value - detached)


class CTKD(Term):
    """CTKD with one temperature for all images ("global"): 0.1·CE + 0.9·KD at the learnt T.

    T = T_min + range·sigmoid(θ) with θ = 1 at first: 15.6 by default. θ ascends the loss, by λ
    times its gradient, with the student's optimiser, learning rate and weight decay, as in the
    authors' code. Their instance-wise temperature is not implemented.
    """

    class Settings(TermSettings):
        """CTKD's settings."""

        # zhengli97/CTKD, scripts/run_cifar_distill.sh, and the defaults of train_student.py.
        weight: float = 0.9
        cross_entropy: float = 0.1
        temperature_min: PositiveFloat = Field(1.0, description="lower limit of T")
        temperature_range: NonNegativeFloat = Field(
            20.0, description="difference between the upper and the lower limit of T"
        )
        curriculum_epochs: PositiveInt = Field(
            10, description="number of epochs in which the reversal's strength rises from 0 to 1"
        )

    needs = frozenset({"teacher_logits"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.theta = nn.Parameter(torch.ones(()))
        self.register_buffer("strength", torch.zeros(()), persistent=False)

    def begin_epoch(self, epoch: int) -> None:
        """Set the strength of the gradient reversal."""
        self.strength.fill_(reversal_strength(epoch, self.settings.curriculum_epochs))

    def forward(self, batch: Batch) -> Tensor:
        """Return KD's loss at the current temperature."""
        return ctkd_loss(batch.student.logits, batch.teacher.logits, self.temperature())

    def temperature(self) -> Tensor:
        """Return T, a scalar; its gradient reaches θ reversed, with the epoch's strength."""
        level = reverse_gradient(self.theta, self.strength).sigmoid()
        return self.settings.temperature_min + self.settings.temperature_range * level
