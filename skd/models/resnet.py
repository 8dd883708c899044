"""CIFAR ResNets of basic blocks (He et al. 2016, arXiv:1512.03385, section 4.2).

`resnet{depth}` has stage widths 16, 32, 64 after a stem of 16; `x4` has 64, 128, 256 after 32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import conv, init_convs, projection, run_stages, stack
from skd.models.network import FeatureNetwork, Outputs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip path; returns the sum before its ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build from in_channels to out_channels; `stride` divides the resolution."""
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm before the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to the pre-activation (N, out, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return residual + self.downsample(x)


class ResNet(FeatureNetwork):
    """A stem and three stages of basic blocks."""

    made_for = 32

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int) -> None:
        """Build by depth and width.

        Args:
            depth: number of weighted layers, 6n + 2 with n blocks per stage.
            widths: channels of the stem and of the three stages.
            num_classes: number of logits.

        Raises:
            ValueError: depth is not 6n + 2 for some n of at least 1.
        """
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"a ResNet of basic blocks has depth 6n + 2, not {depth}")
        stem, first, second, third = widths
        self.conv1 = conv(3, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stack(BasicBlock, stem, first, blocks, stride=1)
        self.layer2 = stack(BasicBlock, first, second, blocks, stride=2)
        self.layer3 = stack(BasicBlock, second, third, blocks, stride=2)
        self.fc = nn.Linear(third, num_classes)
        init_convs(self)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last block's sum before its ReLU."""
        stem = F.relu(self.bn1(self.conv1(images)))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map."""
        return run_stages(stage, maps, self._stages(), self.fc)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.fc

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the stem's BatchNorm and the last one of each stage's last block."""
        return (self.bn1, *(stage[-1].last_norm for stage in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)

NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    **{f"resnet{d}": partial(ResNet, d, _NARROW) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": partial(ResNet, d, _WIDE) for d in (8, 32)},
}
