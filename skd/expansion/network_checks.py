"""Whether a network suits a study's images, and whether its training repeats."""

from __future__ import annotations

from functools import cache, lru_cache

import torch

from skd.common.errors import error_text, suggest
from skd.common.wrapped_networks import network_label, parse_wrapped
from skd.data.images import CHANNELS, DatasetFacts
from skd.expansion.dry_run import network_profile
from skd.models import FeatureNetwork, build_model, network_names
from skd.models.global_draws import REMEDY, drawing_layer
from skd.models.wrapped import INNER_PREFIX
from skd.randomness import seeded

SMALLEST_FOR_IMAGENET_STEM = 64  # pixels; a stem of stride 4 leaves 2x2 maps at the end
SMALLEST_TOO_LARGE_FOR_CIFAR_STEM = 224
CIFAR, IMAGENET = 32, 224  # values of `FeatureNetwork.made_for`
TRIAL_BATCH = 2


def size_problem(name: str, facts: DatasetFacts) -> str | None:
    """Return why a network's stem does not suit the size of the images; ``None`` if it does."""
    made_for, size = made_for_size(name, facts.num_classes), facts.size
    too_small = made_for == IMAGENET and size < SMALLEST_FOR_IMAGENET_STEM
    too_large = made_for == CIFAR and size >= SMALLEST_TOO_LARGE_FOR_CIFAR_STEM
    if not (too_small or too_large):
        return None
    wanted = CIFAR if too_small else IMAGENET
    fitting = [
        other
        for other in network_names()
        if made_for_size(other, facts.num_classes) in (wanted, None)
    ]
    return (
        f"{name} is made for images of {made_for} px, and these have {size} px; use a network "
        f"made for {wanted} px{suggest(name, fitting)}"
    )


def pass_problem(name: str, facts: DatasetFacts) -> str | None:
    """Return why a network cannot run on images of a size; ``None`` if it can."""
    try:
        network_profile(name, facts)
    except Exception as error:  # an own or another library's network raises errors of any type
        return f"{network_label(name)} does not run on {facts.size} px images: {error_text(error)}"
    return None


def training_problem(name: str, facts: DatasetFacts) -> str | None:
    """Return why a run that trains a network would not repeat; ``None`` if it would."""
    try:
        layer = _drawing_layer(name, facts.num_classes, facts.size)
    except Exception as error:  # as in `pass_problem`
        return f"{network_label(name)} does not run in training: {error_text(error)}"
    if layer is None:
        return None
    remedy = "turn it off in its options, such as {dropout: 0}" if parse_wrapped(name) else REMEDY
    place = f"the layer {layer.removeprefix(INNER_PREFIX)} of {network_label(name)}"
    return f"{place} draws from torch's global generator, so its runs would not repeat; {remedy}"


@cache
def made_for_size(name: str, num_classes: int) -> int | None:
    """Return the side of the images that a network is made for; ``None``: any."""
    return _build(name, num_classes).made_for


@cache
def _drawing_layer(name: str, num_classes: int, size: int) -> str | None:
    network = _build(name, num_classes)
    return drawing_layer(network, torch.zeros(TRIAL_BATCH, CHANNELS, size, size))


@lru_cache(maxsize=1)  # the checks of one network follow each other
def _build(name: str, num_classes: int) -> FeatureNetwork:
    with seeded(0, "shapes"):
        return build_model(name, num_classes)
