"""CRD's loss, and the scores of anchors with the entries of a memory bank."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, once_differentiable

GATHERED_BYTES = 2**26  # bank entries gathered at a time: of 8 anchors at K = 16,384 and d = 128


def contrast_loss(
    positive: Tensor, negative: Tensor, counts: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's −[log P₊/(P₊ + c) + Σ₋ log c/(P₋ + c)], and its derivatives.

    Equation 18 of the paper, with c = K/N. In log space: log c/(P + c) = −softplus(log P/c).

    Args:
        positive: log P/c of each anchor's positive, (B,).
        negative: log P/c of each anchor with the scored images, (B, M).
        counts: how often each of these images is a negative of the anchor, (B, M); by default once.

    Returns:
        The losses, (B,), and their derivatives with respect to ``positive``, (B,), and
        ``negative``, (B, M).
    """
    # Above 40, log(1 + exp(x)) equals x even in float64.
    terms, slopes = F.softplus(negative, threshold=40), torch.sigmoid(negative)
    if counts is not None:
        terms, slopes = terms.mul_(counts), slopes.mul_(counts)
    losses = F.softplus(-positive, threshold=40) + terms.sum(dim=1)
    return losses, -torch.sigmoid(-positive), slopes


class WithGradient(Function):
    """A value with a precomputed gradient, so that the backward pass does not read the banks."""

    @staticmethod
    def forward(ctx: FunctionCtx, anchors: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the value, a scalar; ``gradient`` has the shape of ``anchors``."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to the anchors."""
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


class Negatives(Protocol):
    """Each anchor's negatives, and their scores with a bank.

    Attributes:
        counts: how often each scored image is a negative, (B, M); ``None`` if each is one once.
    """

    counts: Tensor | None

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the anchors' products with their positives, (B,), and with other images, (B, M).

        Args:
            anchors: (B, d).
            bank: (N, d).
            indices: indices of the anchors' own images, which are the positives, (B,).
        """

    def weighted_sums(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return each anchor's sum of the scored entries times ``slopes``, (B, M): (B, d)."""


class Drawn(NamedTuple):
    """Negatives that are scored by one product of the anchors with the whole bank.

    ``images`` has each anchor's K negatives, (B, K). If it is ``None``, ``counts`` has how often
    each of all images is a negative, (B, N).
    """

    images: Tensor | None
    counts: Tensor | None

    @classmethod
    def from_counts(cls, counts: Tensor) -> "Drawn":
        """Return the negatives of counts or a mask, (B, N), in the faster form on their device."""
        # With images, the sums scatter to all images: on CUDA, deterministically, this is a sort.
        if counts.dtype != torch.bool or not counts.is_cpu:
            return cls(None, counts)
        positions = torch.from_numpy(np.flatnonzero(counts.numpy())).view(len(counts), -1)
        rows = torch.arange(len(counts))[:, None]
        return cls(positions.sub_(rows * counts.shape[1]), None)

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products: see `Negatives`."""
        scores = anchors @ bank.mT
        positive = scores.gather(1, indices[:, None]).squeeze(1)
        return positive, scores if self.images is None else scores.gather(1, self.images)

    def weighted_sums(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return the sums: see `Negatives`."""
        if self.images is not None:
            all_slopes = slopes.new_zeros(len(slopes), len(bank))
            slopes = all_slopes.scatter_(1, self.images, slopes)
        return slopes @ bank


class Listed(NamedTuple):
    """Negatives, (B, K), whose bank entries are gathered for some anchors at a time."""

    images: Tensor
    counts = None

    def scores(self, anchors: Tensor, bank: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products: see `Negatives`."""
        negative = [
            torch.bmm(self._entries(bank, rows), anchors[rows, :, None]).squeeze(2)
            for rows in self._rows(bank)
        ]
        return (anchors * bank[indices]).sum(dim=1), torch.cat(negative)

    def weighted_sums(self, slopes: Tensor, bank: Tensor) -> Tensor:
        """Return the sums: see `Negatives`."""
        sums = [
            torch.bmm(slopes[rows, None], self._entries(bank, rows)).squeeze(1)
            for rows in self._rows(bank)
        ]
        return torch.cat(sums)

    def _rows(self, bank: Tensor) -> list[slice]:
        """Divide the anchors into parts whose entries fit into `GATHERED_BYTES`, or single ones."""
        count, anchor_bytes = len(self.images), self.images.shape[1] * bank[0].nbytes
        step = max(1, GATHERED_BYTES // anchor_bytes)
        return [slice(first, first + step) for first in range(0, count, step)]

    def _entries(self, bank: Tensor, rows: slice) -> Tensor:
        """Return the bank entries of some anchors' negatives, (b, K, d)."""
        images = self.images[rows]
        return bank.index_select(0, images.flatten()).unflatten(0, images.shape)
