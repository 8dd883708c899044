"""Average pooling to a given size with a gradient that is deterministic on CUDA too."""

import torch
from torch import Tensor


def pool_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (B, C, H, W) to (B, C, *size), as adaptive average pooling does.

    ``adaptive_avg_pool2d`` has no deterministic backward on CUDA. Window i of n over a length L is
    [floor(i·L/n), ceil((i+1)·L/n)), so pooling is a product with one averaging matrix per axis.
    """
    height, width = maps.shape[2:]
    if (height, width) == tuple(size):
        return maps
    rows, columns = (
        _averaging_matrix(height, size[0], maps),
        _averaging_matrix(width, size[1], maps),
    )
    return rows @ maps @ columns.mT


def _averaging_matrix(length: int, count: int, like: Tensor) -> Tensor:
    """Return the matrix that averages windows of a vector, (count, length)."""
    windows = torch.arange(count, device=like.device)[:, None]
    positions = torch.arange(length, device=like.device)
    first = windows * length // count
    end = ((windows + 1) * length + count - 1) // count
    inside = ((positions >= first) & (positions < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)
