"""ImageNet's ResNets (He et al. 2016, arXiv:1512.03385, table 1), as torchvision has them.

Keys and shapes of the weights are torchvision's, and so are the strides, so that its checkpoints
work: a bottleneck strides at its 3x3 convolution, not at the first 1x1 as in the paper.
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
    """A 7x7 stem, max-pooled, and four stages; the image's resolution is divided by 32."""

    def __init__(
        self, block: Block, widths: tuple[int, ...], blocks: tuple[int, ...], num_classes: int
    ) -> None:
        """Build by kind of block, width and depth.

        Args:
            block: maker of a block from (in_channels, out_channels, stride).
            widths: channels of the four stages.
            blocks: numbers of blocks of the four stages.
            num_classes: number of logits.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_WIDTH)
        ends = pairwise((_STEM_WIDTH, *widths))
        for place, ((before, after), count) in enumerate(zip(ends, blocks, strict=True), start=1):
            stage = stack(block, before, after, count, stride=1 if place == 1 else 2)
            self.add_module(f"layer{place}", stage)
        self.fc = nn.Linear(widths[-1], num_classes)
        init_convs(self)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; pre-activations are the last block's sum before its ReLU.

        The stem's map is shown before it is max-pooled, as in the field's code.
        """
        stem = F.relu(self.bn1(self.conv1(images)))
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return run_stages(stem, stages, self.fc, pool=_max_pool)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


_bottleneck = partial(Bottleneck, skip="downsample")

NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    "resnet18": partial(ImageNetResNet, BasicBlock, _BASIC, (2, 2, 2, 2)),
    "resnet34": partial(ImageNetResNet, BasicBlock, _BASIC, (3, 4, 6, 3)),
    "resnet50": partial(ImageNetResNet, _bottleneck, _BOTTLENECK, (3, 4, 6, 3)),
}
