"""Views: what augmentation makes of an image, in whole-batch tensor operations.

A view is a pure function of (seed, epoch, image): zero-pad, crop at an offset, mirror or not. With
a pad of 4 there are 9 × 9 offsets and 2 orientations, 162 views of an image. Which one is drawn
comes from `skd.randomness`, so it is the same on CPU and GPU, for every method and batch size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skd.data.images import Images
from skd.randomness import words


@dataclass(frozen=True, eq=False)
class Views:
    """Which view of each image an epoch shows: (N,) int64 each, by place in the training set."""

    rows: Tensor
    columns: Tensor
    mirrored: Tensor


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of the training images in an epoch: a uniform permutation, (count,)."""
    return torch.from_numpy(np.argsort(words(seed, "order", epoch, count), kind="stable"))


def epoch_views(seed: int, epoch: int, count: int, pad: int, flip: bool) -> Views:
    """Draw every image's view for an epoch: uniform offsets in 0…2·pad, mirrored half the time.

    One 64-bit word an image; the bias of its remainder is below 2⁻⁵⁰.
    """
    drawn = words(seed, "views", epoch, count)
    offsets = 2 * pad + 1
    drawn, mirrored = np.divmod(drawn, np.uint64(2 if flip else 1))
    drawn, rows = np.divmod(drawn, np.uint64(offsets))
    columns = drawn % np.uint64(offsets)
    return Views(*(torch.from_numpy(part.astype(np.int64)) for part in (rows, columns, mirrored)))


class ViewMaker:
    """Makes normalised batches from a data set's images, which it keeps on the device as uint8."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.pad, self.flip = images.pad, images.flip
        self.size = images.train_images.shape[-1]
        self.padded = F.pad(images.train_images, [images.pad] * 4).to(device)
        self.labels = images.train_labels.to(device)
        self.mean = torch.tensor(images.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(images.std, device=device).view(1, 3, 1, 1)
        self._range = torch.arange(self.size, device=device)
        self._channels = torch.arange(3, device=device).view(1, 3, 1, 1)

    def draw(self, seed: int, epoch: int) -> Views:
        """Return an epoch's views, on the device."""
        drawn = epoch_views(seed, epoch, len(self.labels), self.pad, self.flip)
        device = self.labels.device
        return Views(drawn.rows.to(device), drawn.columns.to(device), drawn.mirrored.to(device))

    def batch(self, views: Views, indices: Tensor) -> Tensor:
        """Return the views of some images, (B, 3, H, W) float32, normalised."""
        rows = views.rows[indices, None] + self._range
        mirrored = views.mirrored[indices, None] * (self.size - 1)
        columns = views.columns[indices, None] + (self._range - mirrored).abs()
        pixels = self.padded[
            indices.view(-1, 1, 1, 1),
            self._channels,
            rows[:, None, :, None],
            columns[:, None, None],
        ]
        return self.normalise(pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels scaled to [0, 1], less the mean, over the standard deviation."""
        return pixels.float().div(255).sub(self.mean).div(self.std)
