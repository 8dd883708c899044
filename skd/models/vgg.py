"""CIFAR VGG networks with BatchNorm (Simonyan and Zisserman 2015, arXiv:1409.1556).

Five blocks of widths 64, 128, 256, 512 and 512 with one or two 3x3 convolutions each, and one
linear layer instead of the paper's three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.layers import conv, global_average, init_convs, init_linear
from skd.models.network import FeatureNetwork, Outputs

_WIDTHS = (64, 128, 256, 512, 512)


def _block(in_channels: int, out_channels: int, convs: int) -> nn.Sequential:
    """Return convolutions with BatchNorm and ReLU; the network applies the last ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise((in_channels, *[out_channels] * convs)):
        layers += [conv(before, after, 3, bias=True), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VGG(FeatureNetwork):
    """Five blocks with 2x2 max pooling between them, and global average pooling."""

    def __init__(self, convs: int, num_classes: int) -> None:
        """Build with `convs` convolutions per block and a classifier of num_classes logits."""
        super().__init__()
        for index, (before, after) in enumerate(pairwise((3, *_WIDTHS))):
            self.add_module(f"block{index}", _block(before, after, convs))
        self.classifier = nn.Linear(_WIDTHS[-1], num_classes)
        init_convs(self)
        init_linear(self.classifier, std=0.01)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once; a pre-activation is the output of a block's last BatchNorm."""
        # Images of up to 32x32 are pooled once less: their last maps would be only 2x2.
        last_pooled = 3 if max(images.shape[2:]) > 32 else 2
        x = images
        stages, preactivations = [], []
        for index in range(len(_WIDTHS)):
            preactivation = self.get_submodule(f"block{index}")(x)
            stage = F.relu(preactivation)
            stages.append(stage)
            # The stem's entry is its activated map, as in the other families.
            preactivations.append(preactivation if index else stage)
            x = F.max_pool2d(stage, 2) if index <= last_pooled else stage
        pooled = global_average(x)
        return Outputs(self.classifier(pooled), tuple(stages), tuple(preactivations), pooled)


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    "vgg8": partial(VGG, 1),
    "vgg13": partial(VGG, 2),
}
