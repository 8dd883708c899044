"""Losses are computed in float32 at least."""

import torch
from torch import Tensor


def upcast(values: Tensor) -> Tensor:
    """Return values in float32 at least: in 16 bits, sums of squares and exponentials fail."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
