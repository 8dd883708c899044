"""ResNet-50 for CIFAR: bottleneck blocks behind a 3x3 stem without pooling.

He et al. 2016 (arXiv:1512.03385), table 1, with the ImageNet stem replaced for small images.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import conv, init_convs, projection, run_stages, stack
from skd.models.network import FeatureNetwork, Outputs

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a skip path; returns the sum before its ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, skip: str = "shortcut"
    ) -> None:
        """Build from in_channels to out_channels.

        Args:
            in_channels: width of the input.
            out_channels: width of the output.
            stride: divides the resolution.
            skip: the skip path's name in the state dict; it differs between published networks.
        """
        super().__init__()
        inner = out_channels // _EXPANSION
        self.conv1 = conv(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.skip = skip
        self.add_module(skip, projection(in_channels, out_channels, stride))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm before the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to the pre-activation (N, out, H / stride, W / stride)."""
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        return self.bn3(self.conv3(residual)) + self.get_submodule(self.skip)(x)


class ResNet50(FeatureNetwork):
    """A stem of 64 channels and four stages of 3, 4, 6 and 3 bottlenecks."""

    made_for = 32

    def __init__(self, num_classes: int) -> None:
        """Build with a classifier of num_classes logits."""
        super().__init__()
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stack(Bottleneck, 64, 256, 3, stride=1)
        self.layer2 = stack(Bottleneck, 256, 512, 4, stride=2)
        self.layer3 = stack(Bottleneck, 512, 1024, 6, stride=2)
        self.layer4 = stack(Bottleneck, 1024, 2048, 3, stride=2)
        self.linear = nn.Linear(2048, num_classes)
        init_convs(self)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last block's sum before its ReLU."""
        stem = F.relu(self.bn1(self.conv1(images)))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map."""
        return run_stages(stage, maps, self._stages(), self.linear)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.linear

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the stem's BatchNorm and the last one of each stage's last block."""
        return (self.bn1, *(stage[-1].last_norm for stage in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {"ResNet50": ResNet50}
