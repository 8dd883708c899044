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

    With softmax at temperature T, TCKD is the KL divergence between
    the teacher's and the student's (target, all others), and NCKD the one between their softmaxes
    over the other classes alone. α = 1 and β = 1 - the teacher's target probability would be KD.

    Computed in logarithms, in float32 at least: exact where a probability rounds to 0 or 1.
    Gradients flow to both sides; detach a teacher that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        target: class indices, (B,).
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T > 0.

    Raises:
        ValueError: there is one class only.
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

    The latter is (B, C). At the target it is so low that its probability is 0; yet finite, since
    -inf would make 0·inf in the divergence.
    """
    scaled = upcast(logits) / temperature
    others = scaled.masked_fill(is_target, torch.finfo(scaled.dtype).min / 2)
    own = scaled.masked_fill(~is_target, 0).sum(dim=1)
    return own - others.logsumexp(dim=1), F.log_softmax(others, dim=1)


def _binary_kl(teacher_margin: Tensor, student_margin: Tensor) -> Tensor:
    """Return KL between two-way distributions of given log-odds, (B,)."""
    hit = F.logsigmoid(teacher_margin) - F.logsigmoid(student_margin)
    miss = F.logsigmoid(-teacher_margin) - F.logsigmoid(-student_margin)
    return teacher_margin.sigmoid() * hit + (-teacher_margin).sigmoid() * miss


class DKD(Term):
    """DKD by mdistiller's recipe: CE + DKD, rising over 20 epochs, at T = 4."""

    class Settings(TermSettings):
        """DKD's settings."""

        # mdistiller's defaults for CIFAR-100. β is set by pair: 2, 6 or, for most, 8.
        warmup_epochs: NonNegativeInt = 20
        alpha: NonNegativeFloat = Field(1.0, description="weight of the target class's part")
        beta: NonNegativeFloat = Field(8.0, description="weight of the non-target classes' part")
        temperature: PositiveFloat = Field(4.0, description="T of both softmaxes")

    needs = frozenset({"teacher_logits"})

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if context.num_classes < 2:
            raise UnfitError(f"DKD needs two classes or more, got {context.num_classes}")

    def forward(self, batch: Batch) -> Tensor:
        """Return DKD's loss on the teacher logits that the settings chose."""
        return dkd_loss(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=self.settings.alpha,
            beta=self.settings.beta,
            temperature=self.settings.temperature,
        )
