"""Views: what augmentation makes of an image, in whole-batch tensor operations.

A view is a pure function of (seed, epoch, image): zero-pad, crop at an offset, mirror or not. With
a pad of 4 there are 9 × 9 offsets and 2 orientations, 162 views of an image, which are numbered:
(row · 9 + column) · 2 + mirrored. Which one is drawn comes from `skd.randomness`, so it is the same
on CPU and GPU, for every method and batch size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skd.data.images import Images, view_count
from skd.randomness import random_words

# Images a forward pass: on a CPU more would leave its cache, on a GPU fewer would leave it idle.
TEST_BATCH = {"cpu": 100, "cuda": 1000}


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of the training images in an epoch: a uniform permutation, (count,)."""
    return torch.from_numpy(np.argsort(random_words(seed, "order", epoch, count), kind="stable"))


def draw_view_numbers(seed: int, epoch: int, count: int, pad: int, flip: bool) -> Tensor:
    """Draw every image's view for an epoch: uniform offsets in 0…2·pad, mirrored half the time.

    One 64-bit word an image; the bias of its remainder is below 2⁻⁵⁰.

    Returns:
        (count,) int64: the views' numbers, by place in the training set.
    """
    drawn = random_words(seed, "views", epoch, count)
    offsets, sides = 2 * pad + 1, 2 if flip else 1
    drawn, mirrored = np.divmod(drawn, np.uint64(sides))
    drawn, rows = np.divmod(drawn, np.uint64(offsets))
    columns = drawn % np.uint64(offsets)
    numbers = (rows * np.uint64(offsets) + columns) * np.uint64(sides) + mirrored
    return torch.from_numpy(numbers.astype(np.int64))


def decode_view_numbers(numbers: Tensor, pad: int, flip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return what views' numbers stand for: the crop's row and column, and mirrored (0 or 1)."""
    offsets, sides = 2 * pad + 1, 2 if flip else 1
    places = numbers // sides
    return places // offsets, places % offsets, numbers % sides


class Views(Protocol):
    """What a training asks of its images. Views are known by numbers, whose law is the data set's.

    A training tells which batches are to come (`begin`), has each made ready in turn (`next`) and
    then takes it (`batch`), as often as it likes.
    """

    labels: Tensor  # of the training images, (N,) int64 on the device
    size: int  # height and width of the views

    @property
    def count(self) -> int:
        """How many views an image has; 0: endless."""

    def for_one(self) -> Views:
        """Return views for one training: what is made ready is made ready for it alone."""

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], largest: int = 0) -> None:
        """Say which batches come next, in order.

        Args:
            batches: indices and numbers of each, (B,) int64 on the CPU. Earlier ones are forgotten.
            largest: images in the largest batch that will ever come.
        """

    def next(self) -> None:
        """Make the next of these batches ready."""

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images, (B, 3, H, W) float32, normalised, in channels-last order."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels scaled to [0, 1], less the mean, over the standard deviation."""

    def close(self) -> None:
        """End what runs beside this process."""


class TestImages(Protocol):
    """What an evaluation asks of a data set's test images."""

    on_device: bool  # whether `batches` is work for the device alone

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the images from a place on to before another, (B, 3, H, W) uint8 on the device."""

    def close(self) -> None:
        """End what runs beside this process."""


def normalise_pixels(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return uint8 pixels scaled to [0, 1], less the mean, over the standard deviation."""
    return pixels.to(mean.dtype, copy=True).div_(255).sub_(mean).div_(std)


class PixelViews:
    """Makes normalised batches from a data set's images, which it keeps on the device as uint8."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.pad, self.flip = images.pad, images.flip
        self.size = images.train_images.shape[-1]
        padded = F.pad(images.train_images, [images.pad] * 4)
        self._pixels = padded.permute(0, 2, 3, 1).contiguous().to(device)  # (N, H, W, 3)
        self.labels = images.train_labels.to(device)
        self.mean = torch.tensor(images.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(images.std, device=device).view(1, 3, 1, 1)
        self._range = torch.arange(self.size, device=device)

    @property
    def count(self) -> int:
        """How many views an image has."""
        return view_count(self.pad, self.flip)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,), on the device."""
        drawn = draw_view_numbers(seed, epoch, len(self.labels), self.pad, self.flip)
        return drawn.to(self.labels.device)

    def for_one(self) -> Self:
        """Return itself: nothing is kept for one training."""
        return self

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], largest: int = 0) -> None:
        """Do nothing: everything is on the device."""

    def next(self) -> None:
        """Do nothing: everything is on the device."""

    def close(self) -> None:
        """Do nothing: no other process works for this one."""

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images, (B, 3, H, W) float32, normalised, in channels-last order.

        Args:
            indices: places in the training set, (B,).
            numbers: of each image's view, (B,).
        """
        first_rows, first_columns, mirrored = decode_view_numbers(numbers, self.pad, self.flip)
        rows = first_rows[:, None] + self._range
        within = (self._range - mirrored[:, None] * (self.size - 1)).abs()
        columns = first_columns[:, None] + within
        pixels = self._pixels[indices[:, None, None], rows[:, :, None], columns[:, None]]
        return self.normalise(pixels.permute(0, 3, 1, 2))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels scaled to [0, 1], less the mean, over the standard deviation."""
        return normalise_pixels(pixels, self.mean, self.std)


class TestPixels:
    """Test images that are kept on the device."""

    on_device = True
    __test__ = False  # no test of pytest's

    def __init__(self, images: Images, device: torch.device) -> None:
        self._pixels = images.test_images.to(device)

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the images from a place on to before another, (B, 3, H, W) uint8 on the device."""
        if start < stop:
            yield from self._pixels[start:stop].split(TEST_BATCH[self._pixels.device.type])

    def close(self) -> None:
        """Do nothing: no other process works for this one."""
