"""What is a view of a photo: RandomResizedCrop and a flip, drawn from the view's number.

A view is a pure function of (number, photo), and the number of (seed, epoch, image). The law is
that of torchvision's RandomResizedCrop (Szegedy et al. 2015) and RandomHorizontalFlip: a share of
8 % to 100 % of the area, uniform; a ratio of width to height of 3/4 to 4/3, uniform in its
logarithm; ten tries to fit such a crop into the photo at a uniform place, then the largest central
crop of a bounded ratio; mirrored half the time. Resizing is bilinear with antialiasing, on uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skd.randomness import random_words

SCALE = (0.08, 1.0)  # of the photo's area
RATIO = (3 / 4, 4 / 3)  # of width to height
TRIES = 10
_WORDS = 3 + 2 * TRIES  # mirrored, row, column, then area and ratio of each try
# The field resizes a test image's shorter side to 256 and takes the central 224.
TEST_SIDE, TEST_CROP = 256, 224


@dataclass(frozen=True)
class Crop:
    """A part of a photo, in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool


def draw_photo_view_numbers(seed: int, epoch: int, count: int) -> Tensor:
    """Return the numbers of all photos' views for an epoch, (count,) int64: 63 random bits each."""
    return torch.from_numpy(
        (random_words(seed, "views", epoch, count) >> np.uint64(1)).astype(np.int64)
    )


def draw_uniforms(number: int) -> list[float]:
    """Return what a view is drawn from: numbers of 53 bits in [0, 1)."""
    drawn = np.random.Philox(key=number).random_raw(_WORDS)
    return ((drawn >> np.uint64(11)) * 2.0**-53).tolist()


def draw_crop(number: int, height: int, width: int) -> Crop:
    """Return the part of a photo of some height and width that a view shows.

    What one try draws does not depend on how many there were before, nor the flip on the tries.
    """
    side, row, column, *shapes = draw_uniforms(number)
    mirrored = side < 0.5
    for area, ratio in zip(shapes[::2], shapes[1::2], strict=True):
        shown = _between(*SCALE, area) * height * width
        aspect = math.exp(_between(math.log(RATIO[0]), math.log(RATIO[1]), ratio))
        wide, high = round(math.sqrt(shown * aspect)), round(math.sqrt(shown / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = int(row * (height - high + 1)), int(column * (width - wide + 1))
            return Crop(top, left, high, wide, mirrored)
    return _central(height, width, mirrored)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _central(height: int, width: int, mirrored: bool) -> Crop:
    """Return the largest crop in the middle whose ratio is within the bounds."""
    wide, high = width, height
    if width / height < RATIO[0]:
        high = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        wide = round(height * RATIO[1])
    return Crop((height - high) // 2, (width - wide) // 2, high, wide, mirrored)


def training_view(photo: Tensor, number: int, size: int) -> Tensor:
    """Return a view of a photo, (3, H, W) uint8, as (3, size, size) uint8."""
    crop = draw_crop(number, *photo.shape[1:])
    rows = slice(crop.top, crop.top + crop.height)
    view = _resized(photo[:, rows, crop.left : crop.left + crop.width], size, size)
    return view.flip(2) if crop.mirrored else view


def evaluation_view(photo: Tensor, size: int) -> Tensor:
    """Return what an evaluation sees of a photo, (3, H, W) uint8, as (3, size, size) uint8."""
    height, width = photo.shape[1:]
    short = round(size * TEST_SIDE / TEST_CROP)
    longer = int(short * max(height, width) / min(height, width))
    high, wide = (short, longer) if height <= width else (longer, short)
    top, left = round((high - size) / 2), round((wide - size) / 2)
    return _resized(photo, high, wide)[:, top : top + size, left : left + size]


def _resized(photo: Tensor, height: int, width: int) -> Tensor:
    """Return a photo in another size, computed in integers."""
    # Channels last: torch's fast way for uint8.
    pixels = photo[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0]
