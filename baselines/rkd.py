"""RKD: match distances and angles between images' features (Park et al. 2019, 1904.05068)."""

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings

LEAST_SQUARED_DISTANCE = 1e-12  # as in RepDistiller


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the pairwise distances, each divided by its side's mean distance.

    Section 3.2.1 of the paper. The mean is over all B² ordered pairs, including the B pairs of an
    image with itself, as in RepDistiller. Two equal features have the distance 1e-6 and get no
    gradient from their pair. The loss of a single image is 0. Gradients flow to both sides.

    Args:
        student: (B, D).
        teacher: (B, D').
    """
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the cosines of the angles among all triplets.

    Section 3.2.2 of the paper. The mean is over all B³ ordered triplets, including those with a
    repeated image, as in RepDistiller. Takes B³ and B²·D floats. If the angle's vertex equals
    another feature, the cosine is 0, without a gradient. The loss of a single image is 0. Gradients
    flow to both sides.

    Args:
        student: (B, D).
        teacher: (B, D').
    """
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


class RKD(Term):
    """Relational distillation of the pooled features: distances and angles."""

    class Settings(TermSettings):
        """RKD's settings."""

        weight: float = 1.0  # RepDistiller's CIFAR script, beside cross-entropy at 1
        distance_weight: NonNegativeFloat = Field(  # this and the next: RepDistiller's RKDLoss
            25.0, description="weight of the distances' loss within the term"
        )
        angle_weight: NonNegativeFloat = Field(
            50.0, description="weight of the angles' loss within the term"
        )

    needs = frozenset({"teacher_pooled"})
    reads_target = False
    mixes_images = True  # compares pairs and triplets of images

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of both losses."""
        pooled = batch.student.pooled, batch.teacher.pooled
        return self.settings.distance_weight * rkd_distance_loss(
            *pooled
        ) + self.settings.angle_weight * rkd_angle_loss(*pooled)


def _differences(features: Tensor) -> Tensor:
    """Return x_j - x_i at [i, j], (B, B, D). Unlike a Gram matrix, exact for close features."""
    features = upcast(features)
    return features - features[:, None]


def _relative_distances(features: Tensor) -> Tensor:
    """Return the pairs' distances divided by the mean over distinct images, (B, B)."""
    squares = _differences(features).square().sum(dim=2)
    distances = squares.clamp(min=LEAST_SQUARED_DISTANCE).sqrt()
    distances = distances * (1 - torch.eye(len(distances), device=distances.device))
    pairs = len(distances) * (len(distances) - 1)
    total = distances.sum().clamp(min=LEAST_SQUARED_DISTANCE)  # the sum is 0 for a single image
    return distances * (pairs / total)


def _cosines(features: Tensor) -> Tensor:
    """Return the cosine of the angle at i between j and k, (B, B, B)."""
    differences = _differences(features)
    squares = differences.square().sum(dim=2, keepdim=True)
    apart = squares > 0
    # The inner selection keeps the backward pass from multiplying infinity by 0.
    inverse = torch.where(apart, torch.where(apart, squares, 1).rsqrt(), 0)
    directions = differences * inverse
    return directions @ directions.mT
