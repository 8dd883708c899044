"""CRD's loss, and the scores of anchors against the entries of a memory bank."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, once_differentiable

GATHERED_BYTES = 2**26  # of bank entries gathered at a time: 8 anchors' at K = 16,384 and d = 128


def contrast_loss(
    positive: Tensor, negative: Tensor, times: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's −[log P₊/(P₊ + c) + Σ₋ log c/(P₋ + c)], and its derivatives.

    Eq. 18 of the paper, with c = K/N. In log space: log c/(P + c) = −softplus(log P/c).

    Args:
        positive: log P/c of each anchor's positive, (B,).
        negative: log P/c of each anchor against images, (B, M).
        times: how often each of these is a negative of the anchor, (B, M); by default once.

    Returns:
        The losses, (B,); their derivatives by ``positive``, (B,), and by ``negative``, (B, M).
    """
    # From 40 on, log(1 + exp(x)) is x in float64 too.
    terms, slopes = F.softplus(negative, threshold=40), torch.sigmoid(negative)
    if times is not None:
        terms, slopes = terms.mul_(times), slopes.mul_(times)
    losses = F.softplus(-positive, threshold=40) + terms.sum(dim=1)
    return losses, -torch.sigmoid(-positive), slopes


class WithGradient(Function):
    """A value whose gradient by one input is computed along with it: its backward reads no bank."""

    @staticmethod
    def forward(ctx: FunctionCtx, by: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the value, a scalar; ``gradient`` has the shape of ``by``."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient by the one input."""
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


class Negatives(Protocol):
    """Each anchor's negatives, and how they are scored against a bank.

    Attributes:
        times: how often each scored image is a negative, (B, M); none: once each.
    """

    times: Tensor | None

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the anchors' products with entries of the bank: (B,) and (B, M).

        Args:
            anchors: (B, d).
            bank: (N, d).
            indices: places of the anchors' own images, (B,): the positives.
        """

    def pull(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return the sums of the scored entries, each times its slope, (B, M): (B, d)."""


class Drawn(NamedTuple):
    """Negatives among all images, which are all scored: one product with the whole bank.

    ``images``: each anchor's K, (B, K); or, if none, ``times``: how often each of all, (B, N).
    """

    images: Tensor | None
    times: Tensor | None

    @classmethod
    def of(cls, drawn: Tensor) -> "Drawn":
        """Return what was drawn, (B, N), in the form that its device works on faster."""
        # On CUDA, to scatter back to all images deterministically is to sort.
        if drawn.dtype != torch.bool or not drawn.is_cpu:
            return cls(None, drawn)
        places = torch.from_numpy(np.flatnonzero(drawn.numpy())).view(len(drawn), -1)
        rows = torch.arange(len(drawn))[:, None]
        return cls(places.sub_(rows * drawn.shape[1]), None)

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products: see `Negatives`."""
        scores = anchors @ bank.mT
        positive = scores.gather(1, indices[:, None]).squeeze(1)
        return positive, scores if self.images is None else scores.gather(1, self.images)

    def pull(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return the sums: see `Negatives`."""
        if self.images is not None:
            of_all = slopes.new_zeros(len(slopes), len(bank))
            slopes = of_all.scatter_(1, self.images, slopes)
        return slopes @ bank


class Listed(NamedTuple):
    """Negatives of which each anchor's are gathered: (B, K), some anchors' at a time."""

    images: Tensor
    times = None

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products: see `Negatives`."""
        found = [
            torch.bmm(self._entries(bank, rows), anchors[rows, :, None]).squeeze(2)
            for rows in self._rows(bank)
        ]
        return (anchors * bank[indices]).sum(dim=1), torch.cat(found)

    def pull(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return the sums: see `Negatives`."""
        found = [
            torch.bmm(slopes[rows, None], self._entries(bank, rows)).squeeze(1)
            for rows in self._rows(bank)
        ]
        return torch.cat(found)

    def _rows(self, bank: Tensor) -> list[slice]:
        """Return the anchors by parts whose entries fit into `GATHERED_BYTES`; one at least."""
        count, of_one = len(self.images), self.images.shape[1] * bank[0].nbytes
        step = max(1, GATHERED_BYTES // of_one)
        return [slice(first, first + step) for first in range(0, count, step)]

    def _entries(self, bank: Tensor, rows: slice) -> Tensor:
        """Return the entries of some anchors' negatives, (b, K, d)."""
        images = self.images[rows]
        return bank.index_select(0, images.flatten()).unflatten(0, images.shape)
