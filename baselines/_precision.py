"""Conversion to float32, in which losses are computed at least."""

import torch
from torch import Tensor


def upcast(values: Tensor) -> Tensor:
    """Return values in float32 at least: 16 bits do not suffice for squares and exponentials."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
