"""FitNet: regress a teacher's map from a student's (Romero et al. 2015, 1412.6550)."""

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from baselines._losses import mean_squared_error
from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def fitnet_loss(regressed: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of two maps (B, C, H, W), over all their elements.

    The paper's hint loss is half of the squared distance (equation 3); RepDistiller takes this
    mean. Gradients flow to both sides.
    """
    return mean_squared_error(regressed, teacher)


class FitNet(Term):
    """Hints as in RepDistiller: trained in one stage, jointly with cross-entropy.

    The paper has two stages: first hints for the layers up to the hint, then KD for all layers.
    """

    class Settings(TermSettings):
        """FitNet's settings."""

        weight: float = 100.0  # RepDistiller's CIFAR script, beside cross-entropy at 1
        layer: NonNegativeInt = Field(
            2, description="index of the compared stage of both networks; 0 is the stem"
        )  # RepDistiller's hint_layer

    needs = frozenset({"teacher_features"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        stages = context.student.stages, context.teacher.stages
        if settings.layer >= min(map(len, stages)):
            raise UnfitError(
                f"layer {settings.layer} does not exist: the student's last layer is "
                f"{len(stages[0]) - 1}, the teacher's {len(stages[1]) - 1}"
            )
        self.regressor = _regressor(*(maps[settings.layer].shape[1:] for maps in stages))

    def forward(self, batch: Batch) -> Tensor:
        """Return the error of the map that is regressed from the student's."""
        layer = self.settings.layer
        regressed = self.regressor(upcast(batch.student.stages[layer]))
        return fitnet_loss(regressed, batch.teacher.stages[layer])


def _regressor(student: torch.Size, teacher: torch.Size) -> nn.Sequential:
    """Return a regressor between maps of two shapes (C, H, W): convolution, BatchNorm and ReLU.

    The convolution is RepDistiller's: 3×3 with stride 2 from twice the teacher's size, transposed
    4×4 with stride 2 from half of it, and otherwise unpadded, with the kernel that reduces the
    student's size to the teacher's.
    """
    (student_channels, size, width), (channels, target, target_width) = student, teacher
    if (size, target) != (width, target_width):
        raise UnfitError(
            f"maps must be square; the student's is {size}x{width}, "
            f"the teacher's {target}x{target_width}"
        )
    if size == 2 * target:
        convolution = nn.Conv2d(student_channels, channels, 3, stride=2, padding=1)
    elif 2 * size == target:
        convolution = nn.ConvTranspose2d(student_channels, channels, 4, stride=2, padding=1)
    elif size >= target:
        convolution = nn.Conv2d(student_channels, channels, 1 + size - target)
    else:
        raise UnfitError(
            f"the student's map, {size}x{size}, is smaller than the teacher's, "
            f"{target}x{target}, and not half of it"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
