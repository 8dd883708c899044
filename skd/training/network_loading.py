"""Networks built from state dicts, or messages that say why and which networks would fit."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from skd.common.errors import TeacherError
from skd.models import FeatureNetwork, build_model, network_names
from skd.randomness import seeded
from skd.training.state_dicts import (
    add_missing_counters,
    describe_nonfinite,
    is_counter,
    join_first_names,
    strip_common_prefix,
)

Shapes = dict[str, tuple[int, ...]]


def build_from_state_dict(
    name: str, num_classes: int, weights: dict[str, Tensor], what: str
) -> FeatureNetwork:
    """Return a network with the given weights, whose keys and shapes must fit exactly.

    A prefix that all keys share is removed, missing batch counters are zero, and float16, bfloat16
    and float64 become float32.

    Args:
        name: of the network.
        num_classes: number of classes, C.
        weights: its state dict.
        what: what messages call the weights.

    Raises:
        TeacherError: the weights do not fit, or some are not finite. The message names missing and
            unexpected keys, differing shapes and the networks that the weights fit.
    """
    with seeded(0, "weights to be overwritten"):
        network = build_model(name, num_classes)
    own = network.state_dict()
    weights = add_missing_counters(strip_common_prefix(weights, own), own)
    if problems := _problems(weights, own):
        hint = _fitting_networks(name, num_classes, weights)
        raise TeacherError(f"{what} does not fit: {'; '.join(problems)}{hint}")
    network.load_state_dict(weights)
    if bad := describe_nonfinite(network.state_dict()):
        raise TeacherError(
            f"{what} cannot be used: NaN or infinity in {bad}. A copy in half precision may have "
            "overflowed: take the weights as they were trained"
        )
    return network


def _problems(weights: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Return missing and unexpected keys and differing shapes and types, each as a phrase."""
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    types = [
        f"{key} is {str(weights[key].dtype).removeprefix('torch.')}"
        for key in own
        if key in weights and own[key].is_floating_point() and not weights[key].is_floating_point()
    ]
    problems = {"missing": missing, "unexpected": unexpected, "shapes": shapes, "types": types}
    return [
        f"{title} {len(keys)}: {join_first_names(keys)}" for title, keys in problems.items() if keys
    ]


def _fitting_networks(name: str, num_classes: int, weights: dict[str, Tensor]) -> str:
    """Return the end of a message: which networks, with which number of classes, would fit."""
    matrices = [tensor for tensor in weights.values() if tensor.dim() == 2]
    if not matrices:
        return ""
    classes, given = len(matrices[-1]), _shapes(weights)
    fitting = [other for other in network_names() if _shapes_of(other, classes) == given]
    if name in fitting:
        return f"; it is for {classes} classes, and the data set has {num_classes}"
    of = "" if classes == num_classes else f" with {classes} classes"
    return f"; it fits {' or '.join(fitting)}{of}" if fitting else ""


@cache
def _shapes_of(name: str, num_classes: int) -> Shapes:
    with seeded(0, "shapes"):
        return _shapes(build_model(name, num_classes).state_dict())


def _shapes(weights: dict[str, Tensor]) -> Shapes:
    """Return the shapes of all tensors except batch counters, which old state dicts lack."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if not is_counter(name)}
