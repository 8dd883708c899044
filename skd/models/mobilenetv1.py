"""MobileNetV1 at full width, for ImageNet (Howard et al. 2017, arXiv:1704.04861, table 1)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import conv, run_stages
from skd.models.network import FeatureNetwork, Outputs

_STEM_WIDTH = 32
# (width, stride) of each depthwise separable block. A stage ends before the next block with stride
# 2, so that stages have a ResNet's resolutions. The first block belongs to the first stage.
_STAGES = (
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return a depthwise 3x3 and a 1x1 convolution; the network applies the last ReLU."""
    return nn.Sequential(
        conv(in_channels, in_channels, 3, stride, groups=in_channels),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        conv(in_channels, out_channels, 1),
        nn.BatchNorm2d(out_channels),
    )


class MobileNetV1(FeatureNetwork):
    """A stem of stride 2 and thirteen depthwise separable blocks, in four stages."""

    made_for = 224

    def __init__(self, num_classes: int) -> None:
        """Build with a classifier of num_classes logits."""
        super().__init__()
        # One flat sequence: published checkpoints have these weight names.
        layers: list[nn.Module] = [
            nn.Sequential(conv(3, _STEM_WIDTH, 3, stride=2), nn.BatchNorm2d(_STEM_WIDTH))
        ]
        before = _STEM_WIDTH
        for after, stride in (block for stage in _STAGES for block in stage):
            layers.append(_separable(before, after, stride))
            before = after
        self.model = nn.Sequential(*layers)
        # All weights keep PyTorch's default initialisation, as in published code.
        self.fc = nn.Linear(before, num_classes)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last block's output before its ReLU."""
        stem = F.relu(self.model[0](images))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map."""
        return run_stages(stage, maps, self._stages(), self.fc)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.fc

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the last BatchNorm of the stem and of each stage's last block."""
        return (self.model[0][-1], *(stage[-1][-1] for stage in self._stages()))

    def _stages(self) -> list[list[nn.Sequential]]:
        blocks = iter(self.model[1:])
        return [[next(blocks) for _ in stage] for stage in _STAGES]


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {"MobileNetV1": MobileNetV1}
