"""Forty labelled images for tests of CRD."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGES, CLASSES, WIDTH = 40, 5, 6
LABELS = torch.arange(IMAGES) % CLASSES


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own_class(anchors: list[int]) -> Tensor:
    return torch.tensor(anchors)[:, None] == LABELS
