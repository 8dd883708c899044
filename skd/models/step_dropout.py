"""Dropout that draws from the training step's own stream.

Layers such as ``nn.Dropout`` draw from torch's global generator, which depends on all that the
process did before. A run with them ends with other numbers in each process and after each resume.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Generator, Tensor, nn

Unit = Literal["element", "channel", "image"]

_BITS = 32
_MASK = 2**_BITS - 1


class UnseededDropoutError(RuntimeError):
    """A `StepDropout` ran in training mode before it got the seed of a step."""


class StepDropout(nn.Module):
    """Dropout whose masks are a pure function of the run's seed, epoch, step and image.

    In training, a unit becomes 0 with probability ``p``, and the others are divided by 1 - p
    (Srivastava et al. 2014). In evaluation the layer does nothing. The training loop seeds it
    before each step (`draw_step_seeds`); another loop must do this itself.

    An image's mask depends on its place in the step's batch, not on how the batch is divided among
    processes or into parts. It is a hash of the place, computed with integer arithmetic. So steps
    can be recorded as CUDA graphs and compiled.

    Args:
        p: probability that a unit is dropped, 0 or more and below 1.
        per: what is dropped together: an element (``nn.Dropout``), a channel of a map
            (``nn.Dropout2d``), or all of an image (stochastic depth on a residual branch).

    Raises:
        ValueError: `p` or `per` is not allowed.
    """

    step_seed: Tensor

    def __init__(self, p: float = 0.5, per: Unit = "element") -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be 0 or more and below 1, not {p}")
        if per not in ("element", "channel", "image"):
            raise ValueError(f"per must be element, channel or image, not {per!r}")
        self.p, self.per = p, per
        self.first = 0  # place of the pass's first image in the step's batch
        self.is_seeded = False
        # A tensor, since a recorded step draws it on the device. Not part of checkpoints: each step
        # draws a new one.
        self.register_buffer("step_seed", torch.zeros(1, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop units of (N, …) in training; return the input in evaluation.

        Raises:
            UnseededDropoutError: the layer trains and no step has seeded it.
        """
        if not self.training or self.p == 0:
            return x
        if not self.is_seeded:
            raise UnseededDropoutError(
                "StepDropout has no seed: call draw_step_seeds(step_dropouts(network), generator) "
                "before each training step"
            )
        return x * self._kept(x).to(x.dtype).div_(1 - self.p)

    def _kept(self, x: Tensor) -> Tensor:
        """Return which units stay, (N, …) with 1 in the dimensions that are dropped together."""
        own_dimensions = {"element": x.dim(), "channel": 2, "image": 1}[self.per]
        shape = [size if d < own_dimensions else 1 for d, size in enumerate(x.shape)]
        units = 1
        for size in shape[1:]:
            units *= size
        start = self.first * units
        places = torch.arange(start, start + shape[0] * units, device=x.device)
        return (_hash(_hash(places & _MASK) ^ self.step_seed) >= self._threshold).view(shape)

    @property
    def _threshold(self) -> int:
        return round(self.p * 2**_BITS)

    def extra_repr(self) -> str:
        """Return the settings, as torch's layers do."""
        return f"p={self.p}, per={self.per}"


def _hash(words: Tensor) -> Tensor:
    """Mix 32-bit words, held in int64, by MurmurHash3's finaliser (Appleby, public domain)."""
    words = ((words ^ (words >> 16)) * 0x85EBCA6B) & _MASK
    words = ((words ^ (words >> 13)) * 0xC2B2AE35) & _MASK
    return words ^ (words >> 16)


def step_dropouts(network: nn.Module) -> tuple[StepDropout, ...]:
    """Return the layers of a network that need a seed in each step, in the order of its modules."""
    return tuple(module for module in network.modules() if isinstance(module, StepDropout))


def draw_step_seeds(layers: Iterable[StepDropout], generator: Generator) -> None:
    """Draw a seed for each layer: before the forward passes of each training step.

    Args:
        layers: from `step_dropouts`, always in the same order.
        generator: of this step, on the layers' device.
    """
    for layer in layers:
        layer.step_seed.random_(0, 2**_BITS, generator=generator)
        layer.is_seeded, layer.first = True, 0


def set_first_image(layers: Iterable[StepDropout], first: int) -> None:
    """Set the place, in the step's batch, of the first image of the next forward pass."""
    for layer in layers:
        layer.first = first
