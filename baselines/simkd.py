"""SimKD: the student's features through the teacher's classifier (Chen et al. 2022, 2203.14001)."""

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from baselines._losses import mean_squared_error
from baselines._maps import at_smaller_size, last_maps, pools_last_maps
from baselines._pooling import pool_to
from skd.terms import (
    Batch,
    Classification,
    Outputs,
    Term,
    TermContext,
    TermSettings,
    UnfitError,
)


def simkd_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of two maps (B, C, H, W), over all their elements.

    In float32 at least. Gradients flow to both sides.
    """
    return mean_squared_error(projected, teacher)


class SimKD(Term):
    """A projector of the student's last map, and the teacher's frozen classifier.

    The error of the projected map trains projector and student. The student's prediction, in
    training and in evaluation, is the teacher's classifier on the pooled projected map. The map is
    the one that a network pools, after its activation; if a student has layers between its last
    stage and the pooling, it is the last stage's, as in the authors' code. Maps of different sizes
    are compared at the smaller one, to which the student's is pooled before the projector.
    """

    class Settings(TermSettings):
        """SimKD's settings."""

        weight: float = 1.0
        cross_entropy: float = 0.0  # the authors train with the error of the maps alone
        reduction: PositiveInt = Field(
            2, description="the teacher's channels divided by those inside the projector"
        )

    needs = frozenset({"teacher_features", "teacher_classifier"})
    reads_target = False
    replaces_classifier = True

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if not pools_last_maps(context.teacher):
            raise UnfitError(
                "SimKD gives the teacher's classifier a projection of the teacher's last map, but "
                "this teacher has layers between its last map and its classifier"
            )
        student, teacher = last_maps(context.student), last_maps(context.teacher)
        self.size = tuple(map(min, student.shape[2:], teacher.shape[2:]))
        self.projector = _projector(student.shape[1], teacher.shape[1], settings.reduction)
        self.teacher = context.teacher_modules

    def classify(self, student: Outputs) -> Classification:
        """Return the teacher's classification of the projected map, and that map."""
        projected = self.projector(pool_to(last_maps(student), self.size))
        return Classification(self.teacher.classifier(projected.mean(dim=(2, 3))), projected)

    def forward(self, batch: Batch) -> Tensor:
        """Return the error of the projected map."""
        projected = batch.classification.features
        return simkd_loss(*at_smaller_size(projected, last_maps(batch.teacher)))


def _projector(channels: int, target: int, reduction: int) -> nn.Sequential:
    """Return three convolutions, 1×1, 3×3 and 1×1, each with BatchNorm and ReLU.

    Raises:
        UnfitError: the reduction leaves no channel.
    """
    inner = target // reduction
    if inner == 0:
        raise UnfitError(f"reduction may be at most {target}, the teacher's channels")
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, target, 1, bias=False),
        nn.BatchNorm2d(target),
        nn.ReLU(),
    )
