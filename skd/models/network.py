"""The outputs of every network, and the base class of the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of one forward pass that a loss may read.

    Attributes:
        logits: (N, num_classes), before any softmax.
        stages: feature maps (N, C, H, W), the stem's first, then one per stage.
        preactivations: the same maps before the stage's last ReLU, the stem's first; the stem's
            entry is the same tensor as ``stages[0]``. Empty for a network without pre-activations.
        pooled: (N, C), the globally pooled feature that the classifier reads.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor


class FeatureNetwork(nn.Module, ABC):
    """A classifier that also returns its inner feature maps.

    ``model(x)`` returns the logits and ``model.forward_features(x)`` returns `Outputs`. Both are
    the same single pass, so a method that reads features sees the same logits and updates
    BatchNorm's running statistics as often as a method that does not.
    """

    @abstractmethod
    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once on images (N, 3, H, W), H and W at least 16."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, 3, H, W)."""
        return self.forward_features(images).logits


@torch.no_grad()
def dry_pass(network: FeatureNetwork, images: Tensor) -> Outputs:
    """Return a network's outputs for their shapes, without changing its state or mode."""
    training = network.training
    network.eval()
    outputs = network.forward_features(images)
    network.train(training)
    return outputs
