"""Mixup and CutMix: pairs of images of a batch become one image, with a share of each.

- mixup (Zhang et al. 2018, 1710.09412): λ·x + (1 - λ)·x', with λ from Beta(α, α).
- CutMix (Yun et al. 2019, 1905.04899): a rectangle of x is replaced by that of x'. Its sides are
  √(1 - λ) of the image's, and its centre is uniform. The share of x is what the rectangle leaves.

As in the authors' code, a step has one λ and one rectangle, and partners are a random permutation
of the batch. If the recipe divides a batch into groups (`bn_batch`), partners are permuted within
each group. No group is ever separated, so that a divided batch has the same mixed images.

What is drawn is a pure function of (seed, epoch). The draws for mixing do not change the order or
the views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from skd.randomness import random_words, uniforms

MIXUP, CUTMIX = "mixup", "cutmix"


@dataclass(frozen=True)
class EpochMixing:
    """The mixing of an epoch.

    Attributes:
        partners: for each place in the epoch's order, the partner's place within the same batch,
            from 0, (N,) int64.
        shares: share of the first image in each step, (S,) float64.
        boxes: first row, end row, first column and end column of each step's rectangle, (S, 4)
            int64; empty for mixup.
    """

    partners: Tensor
    shares: Tensor
    boxes: Tensor

    def to(self, device: torch.device) -> EpochMixing:
        """Return the mixing on a device."""
        return EpochMixing(*(x.to(device) for x in (self.partners, self.shares, self.boxes)))

    def copy_(self, other: EpochMixing) -> None:
        """Take over the values of another epoch; the tensors keep their addresses."""
        self.partners.copy_(other.partners)
        self.shares.copy_(other.shares)
        self.boxes.copy_(other.boxes)


def draw_mixing(
    seed: int,
    epoch: int,
    *,
    kind: str,
    alpha: float,
    images: int,
    batch: int,
    group: int | None,
    size: int,
) -> EpochMixing:
    """Draw the mixing of an epoch.

    Args:
        seed: of the run.
        epoch: 1-based.
        kind: "mixup" or "cutmix".
        alpha: of the Beta distribution of shares.
        images: number of training images.
        batch: images in a batch; the last one may be smaller.
        group: images within which partners are found; ``None``: the batch.
        size: height and width of the images, in pixels.
    """
    steps = -(-images // batch)
    share, row, column = uniforms(random_words(seed, "mixing", epoch, 3 * steps)).reshape(-1, steps)
    # The inverse of the distribution's function, so that one number gives one share.
    shares = betaincinv(alpha, alpha, share)
    boxes = np.zeros((steps, 4), dtype=np.int64)
    if kind == CUTMIX:
        boxes = _boxes(shares, row, column, size)
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        shares = 1 - area / size**2
    return EpochMixing(
        torch.from_numpy(_partners(seed, epoch, images, batch, group or batch)),
        torch.from_numpy(shares),
        torch.from_numpy(boxes),
    )


def _partners(seed: int, epoch: int, images: int, batch: int, group: int) -> np.ndarray:
    """Return a uniform permutation within each group, as places within batches."""
    places = np.arange(images)
    within = places % batch
    # Sorted by batch, by group, and by a random word within it.
    words = random_words(seed, "mixing partners", epoch, images)
    order = np.lexsort((words, within // group, places // batch))
    return within[order]


def _boxes(shares: np.ndarray, row: np.ndarray, column: np.ndarray, size: int) -> np.ndarray:
    """Return the rectangles of CutMix, (S, 4): its authors' code, with whole pixels."""
    side = (size * np.sqrt(1 - shares)).astype(np.int64)
    ends = []
    for centre in (row, column):
        middle = (centre * size).astype(np.int64)
        ends += [middle - side // 2, middle + side // 2]
    return np.stack(ends, axis=1).clip(0, size)


def mix_images(kind: str, images: Tensor, partners: Tensor, share: Tensor, box: Tensor) -> Tensor:
    """Return mixed images, (B, 3, H, W), in the memory format of the images.

    Args:
        kind: "mixup" or "cutmix".
        images: (B, 3, H, W).
        partners: places of the second images in the batch, (B,).
        share: of the first image, one number.
        box: the rectangle of CutMix, (4,).
    """
    second = images[partners]
    if kind == MIXUP:
        share = share.to(images.dtype)
        return share * images + (1 - share) * second
    top, bottom, left, right = box
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    return torch.where(inside, second, images)
