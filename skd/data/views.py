"""Views, that is augmented images, computed for whole batches.

A view is a pure function of (seed, epoch, image): zero-pad, crop at an offset, mirror or not. With
a pad of 4 an image has 9 × 9 offsets and 2 orientations: 162 views, numbered
(row · 9 + column) · 2 + mirrored. The numbers are drawn by `skd.randomness`, so they are the same
on CPU and GPU, for every method and batch size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skd.data.images import Images, view_count
from skd.randomness import random_words

# Images per forward pass: more do not fit a CPU's cache, fewer do not keep a GPU busy.
TEST_BATCH = {"cpu": 100, "cuda": 1000}


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of the training images in an epoch: a uniform permutation, (count,)."""
    return torch.from_numpy(np.argsort(random_words(seed, "order", epoch, count), kind="stable"))


def draw_view_numbers(seed: int, epoch: int, count: int, pad: int, flip: bool) -> Tensor:
    """Draw every image's view for an epoch: uniform offsets in 0…2·pad, mirrored half the time.

    Each image takes the remainder of one 64-bit word; its bias is below 2⁻⁵⁰.

    Returns:
        (count,) int64: the views' numbers, by index in the training set.
    """
    return torch.from_numpy(view_numbers_of(random_words(seed, "views", epoch, count), pad, flip))


def view_numbers_of(words: np.ndarray, pad: int, flip: bool) -> np.ndarray:
    """Return the numbers of the views that random words choose, (N,) int64.

    Args:
        words: (N,) uint64.
        pad: width of the padding before the crop.
        flip: whether half of the views are mirrored.
    """
    offsets, sides = 2 * pad + 1, 2 if flip else 1
    drawn, mirrored = np.divmod(words, np.uint64(sides))
    drawn, rows = np.divmod(drawn, np.uint64(offsets))
    columns = drawn % np.uint64(offsets)
    numbers = (rows * np.uint64(offsets) + columns) * np.uint64(sides) + mirrored
    return numbers.astype(np.int64)


def decode_view_numbers(numbers: Tensor, pad: int, flip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Decode views' numbers into the crop's row and column, and 1 if mirrored or 0 if not."""
    offsets, sides = 2 * pad + 1, 2 if flip else 1
    crops = numbers // sides
    return crops // offsets, crops % offsets, numbers % sides


class Views(ABC):
    """The views of a training set. A view of an image is identified by its number.

    A training announces the coming batches (`schedule_batches`), loads each in turn
    (`load_next_batch`), and then reads it (`batch`) any number of times. Where every batch can be
    computed on the device when it is read, the first two do nothing.
    """

    labels: Tensor  # of the training images, (N,) int64, on the device
    size: int  # height and width of the views, in pixels

    @property
    @abstractmethod
    def views_per_image(self) -> int:
        """Number of views of an image; 0 if it is unlimited."""

    @abstractmethod
    def draw_epoch(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""

    @abstractmethod
    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images, (B, 3, H, W) float32, normalised, in channels-last order.

        Args:
            indices: indices of the images in the training set, (B,).
            numbers: the number of each image's view, (B,).
        """

    @abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale uint8 pixels to [0, 1], subtract the mean and divide by the standard deviation."""

    def for_training(self) -> Views:
        """Return the views for one training: scheduled batches are not shared with another one."""
        return self

    def schedule_batches(self, batches: Iterable[tuple[Tensor, Tensor]], largest: int = 0) -> None:  # noqa: B027
        """Announce the coming batches, in order; they replace those announced before.

        Args:
            batches: indices and view numbers of each batch, (B,) int64 on the CPU.
            largest: number of images in the largest batch of the training.
        """

    def load_next_batch(self) -> None:  # noqa: B027  an empty default
        """Load the next of the announced batches."""

    def close(self) -> None:  # noqa: B027
        """Stop the processes that load batches."""


class TestImages(ABC):
    """A data set's test images, for evaluation."""

    __test__ = False  # not a test class of pytest
    on_device: bool  # whether `batches` needs only the device

    @abstractmethod
    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield images `start` to `stop` - 1 in batches, (B, 3, H, W) uint8 on the device."""

    def close(self) -> None:  # noqa: B027
        """Stop the processes that load images."""


def normalise_pixels(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Scale uint8 pixels to [0, 1], subtract the mean and divide by the standard deviation."""
    return pixels.to(mean.dtype, copy=True).div_(255).sub_(mean).div_(std)


class PixelViews(Views):
    """Views of images that are stored on the device, as uint8."""

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
    def views_per_image(self) -> int:
        """Number of views of an image."""
        return view_count(self.pad, self.flip)

    def draw_epoch(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""
        numbers = draw_view_numbers(seed, epoch, len(self.labels), self.pad, self.flip)
        return numbers.to(self.labels.device)

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images: see `Views.batch`."""
        return self.normalise(self.pixels(indices, numbers))

    def pixels(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return the pixels of views of some images, (B, 3, H, W) uint8, in channels-last order."""
        first_rows, first_columns, mirrored = decode_view_numbers(numbers, self.pad, self.flip)
        rows = first_rows[:, None] + self._range
        within = (self._range - mirrored[:, None] * (self.size - 1)).abs()
        columns = first_columns[:, None] + within
        pixels = self._pixels[indices[:, None, None], rows[:, :, None], columns[:, None]]
        return pixels.permute(0, 3, 1, 2)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels, (B, 3, H, W): see `Views.normalise`."""
        return normalise_pixels(pixels, self.mean, self.std)


class TestPixels(TestImages):
    """Test images that are stored on the device."""

    on_device = True

    def __init__(self, images: Images, device: torch.device) -> None:
        self._pixels = images.test_images.to(device)

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield images `start` to `stop` - 1 in batches, (B, 3, H, W) uint8 on the device."""
        if start < stop:
            yield from self._pixels[start:stop].split(TEST_BATCH[self._pixels.device.type])
