"""Launch the kernels: one function per direction. Imports triton, so import this lazily."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from skd.kernels import conv3x3_triton as kernels
from skd.kernels.tables import MIN_BLOCK_SIDE

# Block sizes of the sum over parts: many parts at once, so that their loads overlap, and few
# elements, so that there are enough programs to occupy a GPU.
ADDED_PARTS, SMALL_BLOCK, LARGE_BLOCK = 32, 32, 128
# Triton 3.10 changes the default, and 3.9 warns of it. Results must not depend on the release.
FIXED = {"enable_fp_fusion": True}


def padded_channels(channels: int) -> int:
    """Return the block size for a number of channels: a power of two of at least 16."""
    return max(MIN_BLOCK_SIDE, triton.next_power_of_2(channels))


def forward(
    x: Tensor, weight: Tensor, stride: int, precision: str, blocks: Sequence[int]
) -> Tensor:
    """Return the convolution (N, K, OH, OW) of (N, C, H, W) with (K, C, 3, 3).

    All tensors are channels-last. `blocks` is `skd.kernels.tables.BlockSizes.as_ints()`.
    """
    pixels_of_block, patch, _, warps, stages = blocks
    (n, c, h, w), k = x.shape, len(weight)
    oh, ow = out_size(h, stride), out_size(w, stride)
    y = _empty(x, (n, k, oh, ow))
    pixels = n * oh * ow
    with torch.cuda.device_of(x):
        kernels.forward_kernel[(triton.cdiv(pixels, pixels_of_block),)](
            *(x, weight, y, pixels, h, w, oh, ow, c, k, padded_channels(k), stride),
            *(pixels_of_block, patch, stages == 1, precision),
            num_warps=warps,
            num_stages=stages,
            **FIXED,
        )
    return y


def input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, precision: str, blocks: Sequence[int]
) -> Tensor:
    """Return the input gradient (N, C, H, W). Only the shape of `x` is used."""
    pixels_of_block, patch, _, warps, stages = blocks
    (n, c, h, w), (_, k, oh, ow) = x.shape, grad.shape
    dx = _empty(grad, x.shape)
    pixels = n * out_size(h, stride) * out_size(w, stride)  # those with even row and column
    with torch.cuda.device_of(x):
        kernels.input_gradient_kernel[(triton.cdiv(pixels, pixels_of_block), stride**2)](
            *(grad, weight, dx, n, h, w, oh, ow, c, padded_channels(c), k, stride),
            *(pixels_of_block, patch, stages == 1, precision),
            num_warps=warps,
            num_stages=stages,
            **FIXED,
        )
    return dx


def weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, precision: str, blocks: Sequence[int]
) -> Tensor:
    """Return the weight gradient (K, C, 3, 3). Only shape and dtype of `weight` are used.

    Chunks of pixels are summed separately and then added in a fixed order, without atomics: the
    same input gives the same bits.
    """
    pixels_of_block, patch, chunks, warps, stages = blocks
    (_, c, h, w), (n, k, oh, ow) = x.shape, grad.shape
    pixels, size = n * oh * ow, k * 9 * c
    steps = triton.cdiv(triton.cdiv(pixels, pixels_of_block), chunks)
    used = triton.cdiv(pixels, steps * pixels_of_block)  # chunks that have a pixel
    parts = torch.empty(used, size, device=x.device, dtype=torch.float32)
    out = _empty(weight, weight.shape)
    with torch.cuda.device_of(x):
        kernels.weight_gradient_kernel[(used, triton.cdiv(9 * c, patch))](
            *(x, grad, parts, pixels, steps, h, w, oh, ow, c, k, padded_channels(k), stride),
            *(pixels_of_block, patch, precision),
            num_warps=warps,
            num_stages=stages,
            **FIXED,
        )
        added = LARGE_BLOCK if size >= LARGE_BLOCK**2 else SMALL_BLOCK
        kernels.add_parts_kernel[(triton.cdiv(size, added),)](
            parts, out, used, size, ADDED_PARTS, added, num_warps=4, **FIXED
        )
    return out


def out_size(size: int, stride: int) -> int:
    """Return the output's height or width."""
    return (size - 1) // stride + 1


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(
        tuple(shape), device=like.device, dtype=like.dtype, memory_format=torch.channels_last
    )
