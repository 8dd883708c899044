"""NKD: KD in two parts, the non-target one normalised (Yang et al., ICCV 2023, 2303.13005)."""

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    gamma: float,
    temperature: float,
) -> Tensor:
    """Return the cross-entropies of both parts, -p_t·log q_t - γ·T²·Σ p̂_i·log q̂_i, batch mean.

    p and q are the teacher's and student's softmaxes at temperature 1, and t is the target class; p̂
    and q̂ are their softmaxes at T over the other classes. No entropy is subtracted, so the loss of
    equal logits is not 0.

    In float32 at least. Gradients flow to both sides; detach a teacher that must not learn. (The
    authors' code detaches p_t; their teacher gets no gradient anyway.)

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        target: class indices, (B,).
        gamma: weight of the non-target part.
        temperature: T > 0 of the non-target part.

    Raises:
        ValueError: there is only one class.
    """
    classes = student_logits.shape[1]
    if classes < 2:
        raise ValueError(f"NKD needs two classes or more, got {classes}")
    is_target = torch.arange(classes, device=target.device) == target[:, None]
    student, teacher = (upcast(logits) for logits in (student_logits, teacher_logits))
    products = F.softmax(teacher, dim=1) * F.log_softmax(student, dim=1)
    target_part = products.masked_fill(~is_target, 0).sum(dim=1)
    p = F.softmax(teacher.masked_fill(is_target, -torch.inf) / temperature, dim=1)
    log_q = F.log_softmax(student.masked_fill(is_target, -torch.inf) / temperature, dim=1)
    others = (p * log_q.masked_fill(is_target, 0)).sum(dim=1)  # filled because 0·(-inf) is NaN
    return -(target_part + gamma * temperature**2 * others).mean()


class NKD(Term):
    """NKD by its authors' CIFAR-100 configuration: CE + NKD at T = 3, γ = 3.5."""

    class Settings(TermSettings):
        """NKD's settings."""

        # yzd-v/cls_KD, configs/distillers/cifar100/res34_distill_res18_cifar.py
        gamma: NonNegativeFloat = Field(
            3.5, description="weight of the non-target part; the authors use 1.5 on ImageNet"
        )
        temperature: PositiveFloat = Field(
            3.0, description="T of the non-target part; the authors use 1 on ImageNet"
        )

    needs = frozenset({"teacher_logits"})

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if context.num_classes < 2:
            raise UnfitError(f"NKD needs two classes or more, got {context.num_classes}")

    def forward(self, batch: Batch) -> Tensor:
        """Return NKD's loss on raw or simplified teacher logits, depending on the settings."""
        return nkd_loss(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            gamma=self.settings.gamma,
            temperature=self.settings.temperature,
        )
