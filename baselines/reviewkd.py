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

    A pair's loss is a weighted mean of mean squared errors (over batch, channels and positions): of
    the maps, and of their averages on grids of 4x4, 2x2 and 1x1 that are smaller than the map in
    both directions. The weights are 1, 1/2, 1/4, … in this order. In float32 at least. Gradients
    flow to both sides.

    Args:
        student_features: maps (B, C, H, W), each in the shape of the teacher's map.
        teacher_features: the same number of maps.

    Raises:
        ValueError: the numbers of maps or their shapes differ.
    """
    return torch.stack(
        [_pair_loss(*pair) for pair in zip(student_features, teacher_features, strict=True)]
    ).sum()


def _pair_loss(student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape:
        raise ValueError(f"shapes differ: {tuple(student.shape)} and {tuple(teacher.shape)}")
    # Averaging is linear: the difference of averages is the average of differences.
    difference = upcast(student) - upcast(teacher)
    sizes = [size for size in (4, 2, 1) if size < min(difference.shape[2:])]
    errors = [
        difference.square().mean(),
        *(pool_to(difference, (n, n)).square().mean() for n in sizes),
    ]
    weights = [0.5**level for level in range(len(errors))]
    return sum(w * error for w, error in zip(weights, errors, strict=True)) / sum(weights)


class ABF(nn.Module):
    """Attention-based fusion of a student stage with the deeper stages."""

    def __init__(self, student_width: int, mid_width: int, teacher_width: int, fuses: bool) -> None:
        """Build from the student's channels to the teacher's; `fuses` is false for the deepest."""
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
        """Return the maps to compare with the teacher's, and the maps for the next shallower stage.

        Args:
            maps: the student's maps, (B, student_width, h, w).
            deeper: the maps from the deeper stage's fusion, (B, mid_width, any, any).
            size: (H, W) of the teacher's maps.

        Returns:
            (B, teacher_width, H, W) and (B, mid_width, H, W).
        """
        fused = self.narrow(maps)
        if self.attention is not None:
            deeper = _resize(deeper, fused.shape[2:])
            weights = self.attention(torch.cat((fused, deeper), dim=1)).sigmoid()
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        fused = _resize(fused, size)
        return self.output(fused), fused


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps to (H, W) by nearest neighbours."""
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="nearest")


class ReviewKD(Term):
    """ReviewKD by mdistiller's recipe: CE + w·HCL, with a warm-up of 20 epochs.

    It compares the stages after the stem one by one, then the pooled features as 1x1 maps. The
    teacher's stages are those before the activation.
    """

    class Settings(TermSettings):
        """ReviewKD's settings."""

        # mdistiller's defaults for CIFAR-100. It sets the weight for each pair, from 0.6 to 8.
        weight: float = 1.0
        warmup_epochs: NonNegativeInt = 20
        student_features: Literal["activated", "preactivated"] = Field(
            "activated", description="the student's stages after or before their activation"
        )
        mid_width: PositiveInt = Field(
            512, description="channels of the fused maps, at most those of the pooled feature"
        )

    needs = frozenset({"teacher_features"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if not context.teacher.preactivations:
            raise UnfitError("ReviewKD reads the teacher's pre-activations; it defines none")
        if settings.student_features == "preactivated" and not context.student.preactivations:
            raise UnfitError("the student defines no pre-activations; use its activated stages")
        student, teacher = self._maps(context)
        if len(student) != len(teacher):
            raise UnfitError(
                "ReviewKD compares stages one by one; the student has "
                f"{len(student) - 1} after the stem, the teacher {len(teacher) - 1}"
            )
        mid_width = min(settings.mid_width, student[-1].shape[1])
        self.fusions = nn.ModuleList(
            ABF(maps.shape[1], mid_width, goal.shape[1], fuses=maps is not student[-1])
            for maps, goal in zip(student, teacher, strict=True)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the hierarchical context loss between the fused student maps and the teacher's."""
        student, teacher = self._maps(batch)
        return hcl_loss(self.reviewed(student, teacher), teacher)

    def reviewed(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
        """Return the student's maps in the teacher's shapes, fused from the deepest stage on."""
        outputs, deeper = [], None
        for fusion, maps, goal in reversed(list(zip(self.fusions, student, teacher, strict=True))):
            output, deeper = fusion(maps, deeper, goal.shape[2:])
            outputs.append(output)
        return outputs[::-1]

    def _maps(self, source: Batch | TermContext) -> tuple[list[Tensor], list[Tensor]]:
        """Return the student's and the teacher's maps after the stem and pooled features (1x1)."""
        student, teacher = source.student, source.teacher
        activated = self.settings.student_features == "activated"
        student_stages = student.stages if activated else student.preactivations
        return (
            [*student_stages[1:], student.pooled[:, :, None, None]],
            [*teacher.preactivations[1:], teacher.pooled[:, :, None, None]],
        )
