"""MobileNetV2 at half width and expansion 6, for CIFAR (Sandler et al. 2018, arXiv:1801.04381).

The strides follow published CIFAR code, not the paper: the stem halves the image and the second
group does not. The network has no pre-activations, since its blocks end without an activation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from skd.models.layers import check_stage, conv, global_average, init_convs, init_linear, stack
from skd.models.network import FeatureNetwork, Outputs


class _Group(NamedTuple):
    expansion: int
    width: int
    blocks: int
    stride: int


# Widths are halves of the paper's 16, 24, 32, 64, 96, 160, 320, after a stem of 32 / 2.
_STEM_WIDTH = 16
_GROUPS = (
    _Group(1, 8, 1, 1),
    _Group(6, 12, 2, 1),
    _Group(6, 16, 3, 2),
    _Group(6, 32, 4, 2),
    _Group(6, 48, 3, 1),
    _Group(6, 80, 3, 2),
    _Group(6, 160, 1, 1),
)
# The groups whose outputs are stages: the last group at each resolution.
_STAGE_GROUPS = (1, 2, 4, 6)
# The last layer is not halved: in the paper it keeps its width for width multipliers below 1.
_HEAD_WIDTH = 1280


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        conv(in_channels, out_channels, kernel, stride, groups),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3, and a linear 1x1 that narrows."""

    def __init__(self, expansion: int, in_channels: int, out_channels: int, stride: int) -> None:
        """Build from in_channels to out_channels, with in_channels * expansion in between."""
        super().__init__()
        inner = in_channels * expansion
        self.skips = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *_conv_bn_relu(in_channels, inner, 1),
            *_conv_bn_relu(inner, inner, 3, stride, groups=inner),
            conv(inner, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        out = self.conv(x)
        return x + out if self.skips else out


class MobileNetV2(FeatureNetwork):
    """A stem of stride 2, seven groups of inverted residuals and a 1x1 convolution."""

    made_for = 32

    def __init__(self, num_classes: int) -> None:
        """Build with a classifier of num_classes logits."""
        super().__init__()
        self.conv1 = nn.Sequential(*_conv_bn_relu(3, _STEM_WIDTH, 3, stride=2))
        widths = (_STEM_WIDTH, *(group.width for group in _GROUPS))
        self.blocks = nn.ModuleList(
            stack(partial(InvertedResidual, group.expansion), *ends, group.blocks, group.stride)
            for group, ends in zip(_GROUPS, pairwise(widths), strict=True)
        )
        self.conv2 = nn.Sequential(*_conv_bn_relu(widths[-1], _HEAD_WIDTH, 1))
        self.classifier = nn.Sequential(nn.Linear(_HEAD_WIDTH, num_classes))
        init_convs(self)
        init_linear(self.classifier[0], std=0.01)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; there are no pre-activations."""
        return self.forward_from(0, self.conv1(images))

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its map: activated for the stem, linear for others."""
        check_stage(stage, len(_STAGE_GROUPS))
        first = _STAGE_GROUPS[stage - 1] + 1 if stage else 0
        x = maps
        stages = [x]
        for index, group in enumerate(self.blocks[first:], start=first):
            x = group(x)
            if index in _STAGE_GROUPS:
                stages.append(x)
        pooled = global_average(self.conv2(x))
        return Outputs(self.classifier(pooled), tuple(stages), (), pooled)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.classifier


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {"MobileNetV2": MobileNetV2}
