"""OFD: a comprehensive overhaul of feature distillation (Heo et al. 2019, 1904.01866).

The teacher's maps before the activation are compared above a negative margin, and only where the
student's may not be below them.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines._maps import stages_after_stem
from baselines._pooling import pool_to
from baselines._precision import upcast
from skd.terms import Batch, Outputs, Term, TermContext, TermSettings, UnfitError

LEAST_PROBABILITY = 0.001  # of a negative value, below which the margin is -3·γ, as in their code


def margins(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the margin of each channel, (C,) float64: E[x | x < 0] for x ~ N(β, γ²).

    It is β - γ·φ(β/γ)/Φ(-β/γ). Where Φ(-β/γ) is at most 0.001, it is -3·γ, as in the authors' code.
    Without variance (γ = 0), it is min(β, 0), the limit of the expectation for β < 0; the authors'
    code divides by 0 there.

    Args:
        weight: of a BatchNorm, (C,); γ is its absolute value.
        bias: of the BatchNorm, β, (C,).
    """
    scale, shift = weight.detach().double().abs(), bias.detach().double()
    is_constant = scale == 0
    ratio = shift / torch.where(is_constant, torch.ones_like(scale), scale)
    probability = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    expected = shift - scale * density / probability
    result = torch.where(probability > LEAST_PROBABILITY, expected, -3 * scale)
    return torch.where(is_constant, shift.clamp(max=0), result)


def partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Return the partial squared distance: the sum over channels and positions, mean over images.

    With the target τ = max(t, m), an element counts (s - τ)² unless s ≤ τ ≤ 0: a student's value
    that is not above a negative target is as good as the target. In float32 at least. Gradients
    flow to both sides.

    Args:
        student: s, (B, C, H, W).
        teacher: t, the same shape.
        margin: m, (C,).
    """
    student = upcast(student)
    target = torch.maximum(upcast(teacher), margin[:, None, None].to(student.dtype))
    counts = (student > target) | (target > 0)
    return ((student - target).square() * counts).sum() / len(student)


class OFD(Term):
    """Partial distances of all stages after the stem; each stage counts half of the next.

    A 1×1 convolution with BatchNorm brings the student's map to the teacher's channels. The
    teacher's map is pooled to the student's size, as mdistiller does.
    """

    class Settings(TermSettings):
        """OFD's settings."""

        weight: float = 1e-3  # the authors' for CIFAR-100, beside cross-entropy at 1
        student_features: Literal["preactivated", "activated"] = Field(
            "preactivated", description="the student's stages before or after their activation"
        )

    needs = frozenset({"teacher_features", "teacher_batch_norms"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if not context.teacher.preactivations:
            raise UnfitError("OFD reads the teacher's pre-activations; it defines none")
        if settings.student_features == "preactivated" and not context.student.preactivations:
            raise UnfitError(
                "OFD reads the student's pre-activations; it defines none. Set "
                "student_features: activated to use its stages"
            )
        pairs = self._pairs(context)
        self.connectors = nn.ModuleList(
            _connector(student.shape[1], teacher.shape[1]) for student, teacher in pairs
        )
        norms = context.teacher_modules.batch_norms[1:]
        for stage, (norm, (_, teacher)) in enumerate(zip(norms, pairs, strict=True), start=1):
            self.register_buffer(
                f"margin_{stage}", _stage_margins(norm, teacher, stage), persistent=False
            )

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of the stages' distances; the last stage has weight 1."""
        losses = []
        for connector, (student, teacher) in zip(self.connectors, self._pairs(batch), strict=True):
            connected = connector(student)
            margin = self.get_buffer(f"margin_{len(losses) + 1}")
            losses.append(partial_l2(connected, pool_to(teacher, connected.shape[2:]), margin))
        count = len(losses)
        return sum(loss / 2 ** (count - stage) for stage, loss in enumerate(losses, start=1))

    def _pairs(self, outputs: TermContext | Batch) -> list[tuple[Tensor, Tensor]]:
        return stages_after_stem(
            self._student_maps(outputs.student), outputs.teacher.preactivations
        )

    def _student_maps(self, student: Outputs) -> tuple[Tensor, ...]:
        is_activated = self.settings.student_features == "activated"
        return student.stages if is_activated else student.preactivations


def _connector(channels: int, target: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, target, 1, bias=False)
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / target))
    return nn.Sequential(convolution, nn.BatchNorm2d(target))


def _stage_margins(norm: nn.BatchNorm2d | None, maps: Tensor, stage: int) -> Tensor:
    """Return the margins of a stage's channels, (C,) float64.

    Raises:
        UnfitError: no BatchNorm with weight and bias covers the channels of the pre-activation.
    """
    if norm is None or norm.weight is None or norm.num_features != maps.shape[1]:
        raise UnfitError(
            "OFD's margins come from the BatchNorm before each of the teacher's pre-activations; "
            f"its stage {stage} has none"
        )
    return margins(norm.weight, norm.bias)
