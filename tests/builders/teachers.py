"""A teacher with a classifier and BatchNorms, for losses that use them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skd.models.network import FeatureNetwork, Outputs
from tests.builders.losses import draw


class Parts(FeatureNetwork):
    """A frozen classifier and BatchNorms with float64 weights; it has no forward pass."""

    def __init__(self, width: int, classes: int, channels: Sequence[int | None] = ()) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(count or 1) for count in channels)
        self.is_there = [count is not None for count in channels]
        self.double().eval().requires_grad_(False)
        for seed, parameter in enumerate(self.parameters()):
            parameter.copy_(draw(900 + seed, parameter.shape))

    def forward_features(self, images: Tensor) -> Outputs:
        raise NotImplementedError

    def final_layer(self) -> nn.Module:
        return self.head

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        pairs = zip(self.norms, self.is_there, strict=True)
        return tuple(norm if there else None for norm, there in pairs)


def batch_normed(maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """BatchNorm in training mode from its formula: statistics over images and positions."""
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    variance = (maps - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
    return (maps - mean) / torch.sqrt(variance + 1e-5) * scale + shift
