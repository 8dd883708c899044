"""ImageNet's ResNets (He et al. 2016, arXiv:1512.03385, table 1), as in torchvision.

Keys, shapes and strides are torchvision's, so that its checkpoints load: a bottleneck strides at
its 3x3 convolution, not at the first 1x1 convolution as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import init_convs, run_stages, stack
from skd.models.network import FeatureNetwork, Outputs
from skd.models.resnet import BasicBlock
from skd.models.resnet50 import Bottleneck

_STEM_WIDTH = 64
_BASIC = (64, 128, 256, 512)
_BOTTLENECK = (256, 512, 1024, 2048)

Block = Callable[[int, int, int], nn.Module]


class ImageNetResNet(FeatureNetwork):
    """A max-pooled 7x7 stem and four stages. The last stage has 1/32 of the image's resolution."""

    made_for = 224

    def __init__(
        self, block: Block, widths: tuple[int, ...], blocks: tuple[int, ...], num_classes: int
    ) -> None:
        """Build by kind of block, width and depth.

        Args:
            block: builds a block from (in_channels, out_channels, stride).
            widths: channels of the four stages.
            blocks: number of blocks in each of the four stages.
            num_classes: number of logits.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_WIDTH)
        ends = pairwise((_STEM_WIDTH, *widths))
        for number, ((before, after), count) in enumerate(zip(ends, blocks, strict=True), start=1):
            stage = stack(block, before, after, count, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(widths[-1], num_classes)
        init_convs(self)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the last block's sum before its ReLU.

        The stem's map in the outputs is the one before max pooling, as in published code.
        """
        stem = F.relu(self.bn1(self.conv1(images)))
        return self.forward_from(0, stem)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a stage on its activated map; the stem's is max pooled first."""
        return run_stages(stage, maps, self._stages(), self.fc, pool=_max_pool)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.fc

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the stem's BatchNorm and the last one of each stage's last block."""
        return (self.bn1, *(stage[-1].last_norm for stage in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


_bottleneck = partial(Bottleneck, skip="downsample")

NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    "resnet18": partial(ImageNetResNet, BasicBlock, _BASIC, (2, 2, 2, 2)),
    "resnet34": partial(ImageNetResNet, BasicBlock, _BASIC, (3, 4, 6, 3)),
    "resnet50": partial(ImageNetResNet, _bottleneck, _BOTTLENECK, (3, 4, 6, 3)),
}
