"""Layers and helpers that several architecture families share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.network import Outputs


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """Return a convolution with an odd kernel; at stride 1, the output is as large as the input."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias
    )


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a residual skip path: the identity, or 1x1 conv and BatchNorm if the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def stack(
    block: Callable[[int, int, int], nn.Module],
    in_channels: int,
    out_channels: int,
    count: int,
    stride: int,
) -> nn.Sequential:
    """Return a stage of `count` blocks; only the first one changes width and resolution.

    Args:
        block: builds a block from (in_channels, out_channels, stride).
        in_channels: width of the stage's input.
        out_channels: width of the stage's output.
        count: number of blocks, at least 1.
        stride: stride of the first block.
    """
    first = block(in_channels, out_channels, stride)
    rest = [block(out_channels, out_channels, 1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def global_average(features: Tensor) -> Tensor:
    """Average (N, C, H, W) over its positions to (N, C)."""
    # The gradient of nn.AdaptiveAvgPool2d is not deterministic on CUDA; the mean's is.
    return features.mean(dim=(2, 3))


def _interleave(x: Tensor, dim: int, groups: int) -> Tensor:
    return x.unflatten(dim, (groups, -1)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channel groups of (N, C, H, W), so that the next grouped conv mixes them.

    Channel j of group i moves to index j * groups + i (Zhang et al. 2018, ShuffleNet). The
    memory format does not change.
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        # In NHWC order: a plain reshape would fall back to NCHW and cost a transposition.
        return _interleave(x.permute(0, 2, 3, 1), 3, groups).permute(0, 3, 1, 2)
    return _interleave(x, 1, groups)


def check_stage(stage: int, last: int) -> None:
    """Check the index of a stage, from 0 (the stem) to `last`.

    Raises:
        ValueError: there is no such stage.
    """
    if not 0 <= stage <= last:
        raise ValueError(f"stage must be 0 (the stem) to {last}, not {stage}")


def run_stages(
    first: int,
    maps: Tensor,
    stages: Sequence[Iterable[nn.Module]],
    classifier: nn.Module,
    activate: Callable[[Tensor], Tensor] = F.relu,
    head: Callable[[Tensor], Tensor] | None = None,
    pool: Callable[[Tensor], Tensor] | None = None,
) -> Outputs:
    """Run the stages after `first`, whose blocks return pre-activations; collect the outputs.

    Args:
        first: the stage that `maps` is the output of; 0 is the stem.
        maps: the activated output of that stage, (N, C, H, W).
        stages: all stages after the stem, as sequences of blocks; each block's output is activated
            before the next block.
        classifier: maps the pooled feature (N, C) to the logits.
        activate: the activation after every block.
        head: optional layer between the last stage and the global pooling.
        pool: optional pooling between the stem and the first stage; the stem's map in the outputs
            is not pooled.

    Raises:
        ValueError: there is no such stage.
    """
    check_stage(first, len(stages))
    x = pool(maps) if pool and first == 0 else maps
    activated, raw = [maps], [maps]
    for stage in stages[first:]:
        for block in stage:
            preactivation = block(x)
            x = activate(preactivation)
        activated.append(x)
        raw.append(preactivation)
    pooled = global_average(head(x) if head else x)
    return Outputs(classifier(pooled), tuple(activated), tuple(raw), pooled)


def init_convs(network: nn.Module) -> None:
    """Draw every conv weight from normal(0, sqrt(2 / (k * k * out_channels))), with zero bias.

    He et al. 2015 (arXiv:1502.01852) by fan-out, without regard to groups. Published code uses this
    formula or the equivalent `fan_out` mode of PyTorch's Kaiming initialiser. BatchNorm keeps
    PyTorch's initial values, weight 1 and bias 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_linear(classifier: nn.Linear, std: float | None = None) -> None:
    """Zero the bias; draw the weight from normal(0, std), or leave it if `std` is ``None``."""
    nn.init.zeros_(classifier.bias)
    if std is not None:
        nn.init.normal_(classifier.weight, std=std)
