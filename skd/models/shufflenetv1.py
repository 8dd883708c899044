"""ShuffleNet of 3 groups for CIFAR (Zhang et al. 2018, arXiv:1707.01083).

A 1x1 convolution without pooling replaces the ImageNet stem.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import channel_shuffle, conv, run_stages, stack
from skd.models.network import FeatureNetwork, Outputs

_GROUPS = 3
_STEM_WIDTH = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, and a skip path.

    At stride 2 the skip path is an average pool and is concatenated instead of added.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build from in_channels to out_channels; stride is 1 or 2."""
        super().__init__()
        self.strides = stride == 2
        computed = out_channels - in_channels if self.strides else out_channels
        inner = computed // 4
        # The stem is too narrow for groups: the first convolution after it is not grouped.
        self.shuffled_groups = 1 if in_channels == _STEM_WIDTH else _GROUPS
        self.conv1 = conv(in_channels, inner, 1, groups=self.shuffled_groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, computed, 1, groups=_GROUPS)
        self.bn3 = nn.BatchNorm2d(computed)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to the pre-activation (N, out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        if self.shuffled_groups > 1:
            out = channel_shuffle(out, self.shuffled_groups)
        # The paper has no ReLU after the depthwise convolution; published CIFAR code has one.
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.strides:
            return torch.cat((out, F.avg_pool2d(x, 3, stride=2, padding=1)), dim=1)
        return out + x


class ShuffleNetV1(FeatureNetwork):
    """A stem of 24 channels and stages of 240, 480 and 960 channels in 4, 8 and 4 units."""

    made_for = 32

    def __init__(self, num_classes: int) -> None:
        """Build with a classifier of num_classes logits."""
        super().__init__()
        self.conv1 = conv(3, _STEM_WIDTH, 1)
        self.bn1 = nn.BatchNorm2d(_STEM_WIDTH)
        self.layer1 = stack(ShuffleUnit, _STEM_WIDTH, 240, 4, stride=2)
        self.layer2 = stack(ShuffleUnit, 240, 480, 8, stride=2)
        self.layer3 = stack(ShuffleUnit, 480, 960, 4, stride=2)
        # All weights keep PyTorch's default initialisation, as in published code.
        self.linear = nn.Linear(960, num_classes)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last unit's sum before its ReLU."""
        stem = F.relu(self.bn1(self.conv1(images)))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map."""
        return run_stages(stage, maps, self._stages(), self.linear)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.linear

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the stem's BatchNorm and the last one of each stage's last unit."""
        return (self.bn1, *(stage[-1].bn3 for stage in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {"ShuffleV1": ShuffleNetV1}
