"""Wide residual networks for CIFAR (Zagoruyko and Komodakis 2016, arXiv:1605.07146), no dropout.

`wrn_{depth}_{widen}` has stage widths 16, 32, 64, each times `widen`, after a stem of 16. Its
blocks apply BatchNorm and ReLU *before* their convolutions. So `stages` has each stage's raw
output, and the pre-activation is the output of the next BatchNorm: that of the next stage's first
block, or the network's last one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import check_stage, conv, global_average, init_convs, init_linear, stack
from skd.models.network import FeatureNetwork, Outputs


class WideBlock(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, and a skip path."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build from in_channels to out_channels; `stride` divides the resolution."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        # Only the width is compared: no block has a stride without a change of width.
        self.convShortcut = (
            None if in_channels == out_channels else conv(in_channels, out_channels, 1, stride)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised input, (N, in, H, W), and the block's output.

        The normalised input is the pre-activation of the previous stage. It is returned because
        computing it again would update BatchNorm's running statistics twice.
        """
        normalised = self.bn1(x)
        activated = F.relu(normalised)
        residual = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        # If widths differ, the skip path starts from the activated input too.
        skip = x if self.convShortcut is None else self.convShortcut(activated)
        return normalised, skip + residual


class WideStage(nn.Module):
    """Blocks of one width; the first one may have a stride."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int) -> None:
        """Build from in_channels to out_channels; `stride` is the first block's."""
        super().__init__()
        self.layer = stack(WideBlock, in_channels, out_channels, blocks, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first block's normalised input and the stage's raw output."""
        first, *rest = self.layer
        entry, x = first(x)
        for block in rest:
            _, x = block(x)
        return entry, x


class WideResNet(FeatureNetwork):
    """A stem, three stages of wide blocks and a last BatchNorm."""

    made_for = 32

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        """Build by depth and width.

        Args:
            depth: number of weighted layers, 6n + 4 with n blocks per stage.
            widen: factor on the stages' widths.
            num_classes: number of logits.

        Raises:
            ValueError: depth is not 6n + 4 for some n of at least 1.
        """
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"a wide ResNet has depth 6n + 4, not {depth}")
        first, second, third = 16 * widen, 32 * widen, 64 * widen
        self.conv1 = conv(3, 16, 3)
        self.block1 = WideStage(16, first, blocks, stride=1)
        self.block2 = WideStage(first, second, blocks, stride=2)
        self.block3 = WideStage(second, third, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, num_classes)
        init_convs(self)
        init_linear(self.fc)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; each pre-activation is the output of the next BatchNorm."""
        return self.forward_from(0, self.conv1(images))

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its raw map, which the next block activates."""
        check_stage(stage, len(self._stages()))
        stages, normalised = [maps], []
        for block in self._stages()[stage:]:
            entry, x = block(stages[-1])
            stages.append(x)
            normalised.append(entry)
        normalised.append(self.bn1(stages[-1]))
        pooled = global_average(F.relu(normalised[-1]))
        # The first map's own normalisation belongs to the layers after it.
        preactivations = (maps, *normalised[1:])
        return Outputs(self.fc(pooled), tuple(stages), preactivations, pooled)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.fc

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the next BatchNorm of each stage, and ``None`` for the stem's raw map."""
        return None, self.block2.layer[0].bn1, self.block3.layer[0].bn1, self.bn1

    def _stages(self) -> tuple[WideStage, ...]:
        return self.block1, self.block2, self.block3


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    f"wrn_{depth}_{widen}": partial(WideResNet, depth, widen)
    for depth, widen in ((16, 1), (16, 2), (40, 1), (40, 2))
}
