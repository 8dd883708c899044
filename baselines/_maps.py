"""Helpers of the terms on feature maps: sizes and pairs of stages."""

import torch.nn.functional as F
from torch import Tensor

from baselines._pooling import pool_to
from skd.terms import Outputs, UnfitError

Maps = tuple[Tensor, ...]


def at_smaller_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps (B, C, H, W) to the smaller's H and W."""
    height, width = (min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return pool_to(student, (height, width)), pool_to(teacher, (height, width))


def stages_after_stem(student: Maps, teacher: Maps) -> list[tuple[Tensor, Tensor]]:
    """Pair the maps of both networks, (student's, teacher's), in order and without the stem.

    Args:
        student: `Outputs.stages` of the student.
        teacher: `Outputs.stages` of the teacher.

    Raises:
        UnfitError: their numbers of stages differ, or there is no stage after the stem.
    """
    ours, theirs = len(student) - 1, len(teacher) - 1
    if ours != theirs or ours < 1:
        raise UnfitError(
            f"stages are compared one to one, but after the stem the student has {ours} "
            f"and the teacher {theirs}"
        )
    return list(zip(student[1:], teacher[1:], strict=True))


def last_maps(outputs: Outputs) -> Tensor:
    """Return the activated map (B, C, H, W) of the last stage.

    In WRN the last stage's own map is not activated, and the pre-activation is the BatchNorm's
    output. Networks without pre-activations have the map of their last stage.
    """
    return F.relu(outputs.preactivations[-1]) if outputs.preactivations else outputs.stages[-1]


def pools_last_maps(outputs: Outputs) -> bool:
    """Return whether the pooled feature is as wide as `last_maps`.

    If not, there are other layers between them (MobileNetV2, ShuffleNetV2).
    """
    return last_maps(outputs).shape[1] == outputs.pooled.shape[1]
