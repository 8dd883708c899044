"""The outputs of every network, and the base class of the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from skd.common.errors import SkdError


class MissingPartError(SkdError):
    """A network does not define a part that a method needs. Says which, and what to define."""


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

    def detach(self) -> Outputs:
        """Return the same values without gradients."""
        stages, preactivations = (
            tuple(maps.detach() for maps in each) for each in (self.stages, self.preactivations)
        )
        return Outputs(self.logits.detach(), stages, preactivations, self.pooled.detach())


class FeatureNetwork(nn.Module, ABC):
    """A classifier that also returns its inner feature maps.

    ``model(x)`` returns the logits and ``model.forward_features(x)`` returns `Outputs`. Both are
    the same single pass, so a method that reads features sees the same logits and updates
    BatchNorm's running statistics as often as a method that does not.

    A network must define `forward_features`. The other parts are for methods that use a teacher's
    layers (its classifier, its BatchNorms, its last stages); a network without them works with all
    other methods.

    Attributes:
        made_for: side of the images that the stem is made for, in pixels: 32 (CIFAR) or 224
            (ImageNet). ``None``: images of any size.
    """

    made_for: ClassVar[int | None] = None

    @abstractmethod
    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once on images (N, 3, H, W), H and W at least 16."""

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on that stage's map.

        ``network.forward_from(i, outputs.stages[i])`` returns the logits and the pooled feature of
        ``outputs`` for every stage i. `forward_features` shares its code.

        Args:
            stage: index in `Outputs.stages`; 0 is the stem, the last index leaves the pooling and
                the classifier to run.
            maps: (N, C, H, W), as `Outputs.stages` has them: activated, except in networks that
                activate at the start of the next block (WRN) or not at all (MobileNetV2).

        Returns:
            The outputs from this stage on. The first of `stages` is ``maps``, and so is the first
            of `preactivations` unless the network has none.

        Raises:
            MissingPartError: the network does not define it.
            ValueError: there is no such stage.
        """
        raise self._missing("forward_from(stage, maps)")

    def final_layer(self) -> nn.Module:
        """Return the layer that maps the pooled feature (N, C) to the logits.

        Raises:
            MissingPartError: the network does not define it.
        """
        raise self._missing("final_layer()")

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the BatchNorm before each pre-activation, in the order of `preactivations`.

        Each has as many channels as the pre-activation. In a residual network it is the last one of
        the stage's last block, before the sum; in WRN it is the next block's first one, whose
        output is the pre-activation. These are the layers whose weight and bias OFD's margins are
        computed from (Heo et al. 2019, arXiv:1904.01866). An entry is ``None`` where no single
        BatchNorm stands before the map. The tuple is empty if the network has no pre-activations
        or does not define this.
        """
        return ()

    def _missing(self, part: str) -> MissingPartError:
        name = type(self).__name__
        return MissingPartError(f"the network {name} has no {part}; define it in the class {name}")

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
