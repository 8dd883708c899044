"""ReviewKD: deep student stages review shallow teacher stages (Chen et al. 2021, 2104.09044)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from baselines._pooling import pool_to
from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def hcl_loss(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Return the hierarchical context loss, summed over pairs of maps.

    A pair's loss is the mean squared error (mean over batch,
    channels and places) of the maps and of their averages on grids of 4x4, 2x2 and 1x1, as far as
    these are smaller than the map both ways; the errors have weights 1, 1/2, 1/4, … in this order,
    divided by their sum. Half precision is raised to float32. Gradients flow to both sides.

    Args:
        student_features: maps (B, C, H, W), each of its teacher's shape.
        teacher_features: as many maps.

    Raises:
        ValueError: the two sides differ in number or in a shape.
    """
    return torch.stack(
        [_pair_loss(*pair) for pair in zip(student_features, teacher_features, strict=True)]
    ).sum()


def _pair_loss(student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape:
        raise ValueError(f"shapes differ: {tuple(student.shape)} and {tuple(teacher.shape)}")
    # Averaging is linear: the gap between averages is the gap's average.
    gap = upcast(student) - upcast(teacher)
    sizes = [size for size in (4, 2, 1) if size < min(gap.shape[2:])]
    errors = [gap.square().mean(), *(pool_to(gap, (n, n)).square().mean() for n in sizes)]
    weights = [0.5**place for place in range(len(errors))]
    return sum(w * error for w, error in zip(weights, errors, strict=True)) / sum(weights)


class ABF(nn.Module):
    """Attention-based fusion of one student stage with the deeper ones'."""

    def __init__(self, student_width: int, mid_width: int, teacher_width: int, fuses: bool) -> None:
        """Build from the student's channels to the teacher's; the deepest one fuses nothing."""
        super().__init__()
        self.narrow = nn.Sequential(
            nn.Conv2d(student_width, mid_width, 1, bias=False), nn.BatchNorm2d(mid_width)
        )
        self.attention = nn.Conv2d(2 * mid_width, 2, 1) if fuses else None
        self.output = nn.Sequential(
            nn.Conv2d(mid_width, teacher_width, 3, padding=1, bias=False),
            nn.BatchNorm2d(teacher_width),
        )
        for conv in (self.narrow[0], self.output[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(
        self, maps: Tensor, deeper: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return what imitates the teacher's maps, and what the next shallower stage fuses.

        Args:
            maps: the student's, (B, student_width, h, w).
            deeper: what the deeper stage's fusion handed on, (B, mid_width, any, any).
            size: (H, W) of the teacher's maps.

        Returns:
            (B, teacher_width, H, W) and (B, mid_width, H, W).
        """
        fused = self.narrow(maps)
        if self.attention is not None:
            deeper = _resized(deeper, fused.shape[2:])
            shares = self.attention(torch.cat((fused, deeper), dim=1)).sigmoid()
            fused = fused * shares[:, :1] + deeper * shares[:, 1:]
        fused = _resized(fused, size)
        return self.output(fused), fused


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maps at a size (H, W), by the nearest neighbour."""
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="nearest")


class ReviewKD(Term):
    """ReviewKD by mdistiller's recipe: CE + w·HCL, rising over 20 epochs.

    Stages are paired one by one, the stem left out and the pooled feature, as a 1x1 map, last. The
    teacher's are taken before the activation.
    """

    class Settings(TermSettings):
        """ReviewKD's settings."""

        # mdistiller's defaults for CIFAR-100. Its weight is set by pair, from 0.6 to 8.
        weight: float = 1.0
        warmup_epochs: NonNegativeInt = 20
        student_features: Literal["activated", "preactivated"] = Field(
            "activated", description="the student's stages, after or before their activation"
        )
        mid_width: PositiveInt = Field(
            512, description="channels of the fused maps, at most; never more than pooled ones"
        )

    needs = frozenset({"teacher_features"})

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if not context.teacher.preactivations:
            raise UnfitError("ReviewKD reads the teacher's pre-activations; it defines none")
        if settings.student_features == "preactivated" and not context.student.preactivations:
            raise UnfitError("the student defines no pre-activations; use its activated stages")
        student, teacher = self._maps(context)
        if len(student) != len(teacher):
            raise UnfitError(
                "ReviewKD pairs stages one by one; the student has "
                f"{len(student) - 1} after the stem, the teacher {len(teacher) - 1}"
            )
        mid_width = min(settings.mid_width, student[-1].shape[1])
        self.fusions = nn.ModuleList(
            ABF(own.shape[1], mid_width, goal.shape[1], fuses=own is not student[-1])
            for own, goal in zip(student, teacher, strict=True)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return HCL between the fused student maps and the teacher's."""
        student, teacher = self._maps(batch)
        return hcl_loss(self.reviewed(student, teacher), teacher)

    def reviewed(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
        """Return the student's maps, fused from the deepest on, in the teacher's shapes."""
        outputs, deeper = [], None
        for fusion, maps, goal in reversed(list(zip(self.fusions, student, teacher, strict=True))):
            output, deeper = fusion(maps, deeper, goal.shape[2:])
            outputs.append(output)
        return outputs[::-1]

    def _maps(self, source: Batch | TermContext) -> tuple[list[Tensor], list[Tensor]]:
        """Return both sides' maps after the stem, and the pooled feature as a 1x1 map."""
        student, teacher = source.student, source.teacher
        activated = self.settings.student_features == "activated"
        own = student.stages if activated else student.preactivations
        return (
            [*own[1:], student.pooled[:, :, None, None]],
            [*teacher.preactivations[1:], teacher.pooled[:, :, None, None]],
        )
