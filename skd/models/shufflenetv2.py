"""ShuffleNetV2 of width 1 for CIFAR (Ma et al. 2018, arXiv:1807.11164).

A 1x1 convolution without pooling replaces the ImageNet stem.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import channel_shuffle, conv, run_stages, stack
from skd.models.network import FeatureNetwork, Outputs


class SplitUnit(nn.Module):
    """Pass half of the channels through; apply 1x1, depthwise 3x3 and 1x1 convs to the others."""

    def __init__(self, channels: int) -> None:
        """Build for an even number of channels, in and out."""
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the pre-activation of the same shape, not yet shuffled."""
        passed, out = x.chunk(2, dim=1)
        out = F.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        return torch.cat((passed, self.bn3(self.conv3(out))), dim=1)


class DownUnit(nn.Module):
    """Halve the resolution on two paths: depthwise and 1x1; 1x1, depthwise and 1x1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build from in_channels to an even number of out_channels."""
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, stride=2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to the pre-activation (N, out, H / 2, W / 2), not yet shuffled."""
        short = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        long = F.relu(self.bn3(self.conv3(x)))
        long = self.bn5(self.conv5(self.bn4(self.conv4(long))))
        return torch.cat((short, long), dim=1)


def _unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return DownUnit(in_channels, out_channels) if stride == 2 else SplitUnit(out_channels)


def _activate(preactivation: Tensor) -> Tensor:
    # The half that was passed through is activated already: ReLU does not change it.
    return channel_shuffle(F.relu(preactivation), 2)


class ShuffleNetV2(FeatureNetwork):
    """A stem of 24, stages of 116, 232 and 464 channels in 4, 8 and 4 units, a head of 1024.

    `stages` are shuffled and `preactivations` are not, so their channels do not correspond.
    """

    made_for = 32

    def __init__(self, num_classes: int) -> None:
        """Build with a classifier of num_classes logits."""
        super().__init__()
        self.conv1 = conv(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = stack(_unit, 24, 116, 4, stride=2)
        self.layer2 = stack(_unit, 116, 232, 8, stride=2)
        self.layer3 = stack(_unit, 232, 464, 4, stride=2)
        self.conv2 = conv(464, 1024, 1)
        self.bn2 = nn.BatchNorm2d(1024)
        # All weights keep PyTorch's default initialisation, as in published code.
        self.linear = nn.Linear(1024, num_classes)

    def _head(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(x)))

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last unit's output before its shuffle."""
        stem = F.relu(self.bn1(self.conv1(images)))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map; all but the stem's are shuffled."""
        return run_stages(stage, maps, self._stages(), self.linear, _activate, self._head)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.linear

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the stem's BatchNorm; a stage has none that covers all channels of its map.

        Half of a stage's channels were normalised by earlier units.
        """
        return (self.bn1, *(None for _ in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {"ShuffleV2": ShuffleNetV2}
