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

from skd.models.layers import check_stage, conv, global_average, init_convs, init_linear
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

    made_for = 32

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
        return self.forward_from(0, F.relu(self.block0(images)))

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the layers after a block on its activated map, which is max pooled first."""
        check_stage(stage, len(_WIDTHS) - 1)
        x = maps
        stages, preactivations = [maps], [maps]
        for index, block in enumerate(self._blocks()[stage + 1 :], start=stage + 1):
            preactivation = block(_pool(x, index - 1))
            x = F.relu(preactivation)
            stages.append(x)
            preactivations.append(preactivation)
        pooled = global_average(x)
        return Outputs(self.classifier(pooled), tuple(stages), tuple(preactivations), pooled)

    def final_layer(self) -> nn.Module:
        """Return the linear layer that maps the pooled feature to the logits."""
        return self.classifier

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Return the last BatchNorm of each block; the first block is the stem."""
        return tuple(block[-1] for block in self._blocks())

    def _blocks(self) -> tuple[nn.Sequential, ...]:
        return tuple(self.get_submodule(f"block{index}") for index in range(len(_WIDTHS)))


def _pool(maps: Tensor, block: int) -> Tensor:
    """Pool the map of a block before the next block.

    The fourth block's map is left as it is if it is at most 4x4, as for 32x32 images: the last
    block's maps would be only 2x2.
    """
    is_small = block == 3 and max(maps.shape[2:]) <= 4
    return maps if is_small else F.max_pool2d(maps, 2)


NETWORKS: dict[str, Callable[[int], FeatureNetwork]] = {
    "vgg8": partial(VGG, 1),
    "vgg13": partial(VGG, 2),
}
