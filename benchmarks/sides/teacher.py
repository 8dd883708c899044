"""The teacher of a case: from the store, or with random weights, which take the same time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.cases import BenchmarkCase, SideOptions
from skd.data.images import Images
from skd.models import FeatureNetwork, build_model
from skd.randomness import seeded
from skd.store.store import Store
from skd.training.weights import load_teacher_network

STORED, RANDOM = "store", "random"
SETTLING_IMAGES = 64


def build_teacher(
    case: BenchmarkCase, options: SideOptions, images: Images, device: torch.device
) -> tuple[FeatureNetwork | None, str | None]:
    """Return a case's teacher, frozen and in evaluation mode, and the source of its weights.

    The source is `STORED`, or `RANDOM` if the store does not have the teacher. Both are ``None`` if
    the method needs no teacher.

    Raises:
        TeacherError: the store's weights are not those on its card.
    """
    if case.spec.teacher is None or case.teacher_id is None:
        return None, None
    entry = Store(options.results).teacher(case.teacher_id)
    if entry.card() is not None:
        return load_teacher_network(entry, device, images.num_classes).network, STORED
    with seeded(case.spec.seed, "weights of a teacher to time"):
        network = build_model(case.spec.teacher.network, images.num_classes)
    initialise_batch_norm(network, normalised_images(images, SETTLING_IMAGES))
    return network.to(device).eval().requires_grad_(False), RANDOM


@torch.no_grad()
def initialise_batch_norm(network: nn.Module, batch: Tensor) -> None:
    """Set the BatchNorm statistics of a random network to those of a batch (B, 3, H, W).

    Without them, the outputs of a deep network in evaluation mode are extremely large.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics become the batch's
    network.train()
    network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def normalised_images(images: Images, count: int) -> Tensor:
    """Return the first training images, normalised, (count, 3, H, W)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (images.mean, images.std))
    return (images.train_images[:count] / 255 - mean) / std
