"""The layer that replaces nn.Conv2d in a network and uses the kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skd.kernels.conv3x3 import DEVICES, MAX_CHANNELS, conv3x3
from skd.kernels.tables import ConvBlocks, ConvInput, KernelTable

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class KernelConv2d(nn.Conv2d):
    """A 3x3 Conv2d that uses our kernels for the inputs for which a table has them as faster.

    It shares the parameters and the state-dict keys of the layer that it replaces. If the table has
    no entry for the input's batch, size and dtype, it computes what nn.Conv2d does. `precision` is
    the operator's; "tf32" is also torch's default for cuDNN's convolutions.
    """

    def __init__(self, layer: nn.Conv2d, table: KernelTable, precision: str = "tf32") -> None:
        # On the meta device no initial weights are drawn: the global generator stays as it is.
        super().__init__(
            layer.in_channels, layer.out_channels, 3, layer.stride, 1, bias=False, device="meta"
        )
        self.weight = layer.weight
        self.train(layer.training)
        self.precision = precision
        self.blocks_by_input = dict(
            table.blocks_by_input(layer.in_channels, layer.out_channels, layer.stride[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        dtype = _computed_in(x)
        blocks = self._blocks(x, dtype)
        if blocks is None:
            return super().forward(x)
        weight = self.weight.to(dtype)
        return conv3x3(x.to(dtype), weight, self.stride[0], self.precision, *map(list, blocks))

    def _blocks(self, x: Tensor, dtype: torch.dtype) -> ConvBlocks | None:
        if x.dim() != 4 or x.device.type not in DEVICES or dtype not in _DTYPES:
            return None
        if dtype != _computed_in(self.weight) or x.shape[1] != self.in_channels:
            return None  # F.conv2d raises the error
        return self.blocks_by_input.get(
            ConvInput(_DTYPES[dtype], x.shape[0], x.shape[2], x.shape[3])
        )


def use_kernels(module: nn.Module, table: KernelTable, precision: str = "tf32") -> int:
    """Replace every eligible convolution within a module by a KernelConv2d; return their number.

    Eligible are 3x3 convolutions with padding 1, stride 1 or 2 and at most 64 channels, without
    bias, groups or dilation. A table without an entry for a layer leaves its results unchanged.

    Args:
        module: changed in place; its parameters stay the same objects.
        table: the table of the GPU that the module is trained on.
        precision: how float32 is multiplied, "tf32" or "ieee". Tables are measured with TF32.
    """
    replaced = 0
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if is_eligible(child):
                setattr(parent, name, KernelConv2d(child, table, precision))
                replaced += 1
    return replaced


def is_eligible(module: nn.Module) -> bool:
    """Whether a module is a convolution that the kernels can compute."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.padding == (1, 1)
        and module.stride in ((1, 1), (2, 2))
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and max(module.in_channels, module.out_channels) <= MAX_CHANNELS
    )


def _computed_in(tensor: Tensor) -> torch.dtype:
    """Return the dtype that F.conv2d would compute with: autocast does not cast float64."""
    kind = tensor.device.type
    if tensor.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return tensor.dtype
