"""VID: the student's maps predict the teacher's, as Gaussians (Ahn et al. 2019, 1904.05835)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines._maps import at_smaller_size, stages_after_stem
from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings

LEAST_VARIANCE = 1e-5  # as in the authors' code


def vid_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """Return ½·((t - μ)²/σ² + log σ²), mean over all elements of the map.

    This is the negative log-likelihood of the teacher's map t under a Gaussian, without its
    constant: the negative of the paper's variational bound on the mutual information. It can be
    negative. Gradients flow to all three arguments.

    Args:
        mean: μ, (B, C, H, W).
        variance: σ² > 0 of each channel, (C,).
        teacher: t, (B, C, H, W).
    """
    variance = variance[:, None, None]
    return 0.5 * ((teacher - mean).square() / variance + variance.log()).mean()


class VID(Term):
    """Variational information distillation, summed over all stages after the stem."""

    class Settings(TermSettings):
        """VID's settings."""

        weight: float = 1.0  # RepDistiller's CIFAR script, beside cross-entropy at 1
        initial_variance: float = Field(  # RepDistiller's init_pred_var
            5.0, gt=LEAST_VARIANCE, description="initial variance of every channel"
        )

    needs = frozenset({"teacher_features"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        pairs = stages_after_stem(context.student.stages, context.teacher.stages)
        self.predictors = nn.ModuleList(
            _Predictor(student.shape[1], teacher.shape[1], settings.initial_variance)
            for student, teacher in pairs
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of the stages' losses, each at the size of the smaller map."""
        losses = []
        pairs = stages_after_stem(batch.student.stages, batch.teacher.stages)
        for predictor, pair in zip(self.predictors, pairs, strict=True):
            student, teacher = at_smaller_size(*map(upcast, pair))
            losses.append(vid_loss(*predictor(student), teacher))
        return torch.stack(losses).sum()


class _Predictor(nn.Module):
    """The Gaussian of a teacher's map given a student's map.

    Three 1×1 convolutions compute its mean. A channel's variance is the same for all images and
    positions: softplus(α) + 1e-5 with a trained α.
    """

    def __init__(self, student_channels: int, channels: int, initial_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        excess = initial_variance - LEAST_VARIANCE
        inverse_softplus = excess + math.log(-math.expm1(-excess))
        self.alpha = nn.Parameter(torch.full((channels,), inverse_softplus))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, (B, C, H, W), and the variance, (C,)."""
        return self.mean(student), F.softplus(self.alpha) + LEAST_VARIANCE
