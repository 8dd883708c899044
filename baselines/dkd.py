"""DKD: KD in two parts, target and non-target classes (Zhao et al., CVPR 2022, 2203.08679)."""

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
) -> Tensor:
    """Return T²·(α·TCKD + β·NCKD), mean over the batch.

    With softmaxes at temperature T, TCKD is the KL divergence between the teacher's and the
    student's binary distributions (target, all others), and NCKD that between their softmaxes over
    the other classes. With α = 1 and β = 1 - the teacher's target probability, the loss is KD's.

    Computed with logarithms, in float32 at least: exact even if a probability rounds to 0 or 1.
    Gradients flow to both sides; detach a teacher that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        target: class indices, (B,).
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T > 0.

    Raises:
        ValueError: there is only one class.
    """
    classes = student_logits.shape[1]
    if classes < 2:
        raise ValueError(f"DKD needs two classes or more, got {classes}")
    is_target = torch.arange(classes, device=target.device) == target[:, None]
    student_margin, student_others = _decoupled(student_logits, is_target, temperature)
    teacher_margin, teacher_others = _decoupled(teacher_logits, is_target, temperature)
    tckd = _binary_kl(teacher_margin, student_margin).mean()
    nckd = F.kl_div(student_others, teacher_others, reduction="batchmean", log_target=True)
    return (alpha * tckd + beta * nckd) * temperature**2


def _decoupled(logits: Tensor, is_target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the log-odds of the target against all others, (B,), and the others' log-softmax.

    The log-softmax is (B, C). At the target it is finite, but so low that the probability is 0:
    with -inf, the divergence would contain 0·inf.
    """
    scaled = upcast(logits) / temperature
    others = scaled.masked_fill(is_target, torch.finfo(scaled.dtype).min / 2)
    target_logits = scaled.masked_fill(~is_target, 0).sum(dim=1)
    return target_logits - others.logsumexp(dim=1), F.log_softmax(others, dim=1)


def _binary_kl(teacher_margin: Tensor, student_margin: Tensor) -> Tensor:
    """Return the KL divergence between binary distributions with given log-odds, (B,)."""
    target = F.logsigmoid(teacher_margin) - F.logsigmoid(student_margin)
    others = F.logsigmoid(-teacher_margin) - F.logsigmoid(-student_margin)
    return teacher_margin.sigmoid() * target + (-teacher_margin).sigmoid() * others


class DKD(Term):
    """DKD by mdistiller's recipe: CE + DKD at T = 4, with a warm-up of 20 epochs."""

    class Settings(TermSettings):
        """DKD's settings."""

        # mdistiller's defaults for CIFAR-100. It sets β for each pair: 2, 6 or, for most, 8.
        warmup_epochs: NonNegativeInt = 20
        alpha: NonNegativeFloat = Field(1.0, description="weight of the target class's loss")
        beta: NonNegativeFloat = Field(8.0, description="weight of the non-target classes' loss")
        temperature: PositiveFloat = Field(4.0, description="T of both softmaxes")

    needs = frozenset({"teacher_logits"})

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if context.num_classes < 2:
            raise UnfitError(f"DKD needs two classes or more, got {context.num_classes}")

    def forward(self, batch: Batch) -> Tensor:
        """Return DKD's loss on raw or simplified teacher logits, depending on the settings."""
        return dkd_loss(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=self.settings.alpha,
            beta=self.settings.beta,
            temperature=self.settings.temperature,
        )
