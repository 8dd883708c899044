"""Views of photos: RandomResizedCrop and a flip, drawn from the view's number.

A view is a pure function of (number, photo), and its number is a pure function of (seed, epoch,
image). Crops have the distribution of torchvision's RandomResizedCrop (Szegedy et al. 2015) and
RandomHorizontalFlip. The share of the area is uniform in 8 % to 100 %, and the ratio of width to
height is log-uniform in 3/4 to 4/3. After ten crops that do not fit into the photo, the view is the
largest central crop with a ratio in these bounds. Half of the views are mirrored. Resizing is
bilinear with antialiasing, on uint8.
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
# The usual evaluation: the shorter side is resized to 256, and the central 224 pixels are taken.
TEST_SIDE, TEST_CROP = 256, 224


@dataclass(frozen=True)
class Crop:
    """A rectangle of a photo, in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool


def draw_photo_view_numbers(seed: int, epoch: int, count: int, stream: str = "views") -> Tensor:
    """Return the numbers of all photos' views for an epoch, (count,) int64: 63 random bits each.

    Args:
        seed: of the run.
        epoch: 1-based.
        count: number of photos.
        stream: name of the random stream.
    """
    return torch.from_numpy(
        (random_words(seed, stream, epoch, count) >> np.uint64(1)).astype(np.int64)
    )


def draw_uniforms(number: int) -> list[float]:
    """Return the random numbers of a view, in [0, 1) with 53 bits."""
    words = np.random.Philox(key=number).random_raw(_WORDS)
    return ((words >> np.uint64(11)) * 2.0**-53).tolist()


def draw_crop(number: int, height: int, width: int) -> Crop:
    """Return the crop of a view of a photo with some height and width.

    Each try has its own random numbers, and so has the flip.
    """
    flip, row, column, *shapes = draw_uniforms(number)
    mirrored = flip < 0.5
    for area_number, ratio_number in zip(shapes[::2], shapes[1::2], strict=True):
        area = _interpolate(*SCALE, area_number) * height * width
        ratio = math.exp(_interpolate(math.log(RATIO[0]), math.log(RATIO[1]), ratio_number))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(row * (height - crop_height + 1))
            left = int(column * (width - crop_width + 1))
            return Crop(top, left, crop_height, crop_width, mirrored)
    return _central_crop(height, width, mirrored)


def _interpolate(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _central_crop(height: int, width: int, mirrored: bool) -> Crop:
    """Return the largest central crop whose ratio is within the bounds."""
    crop_width, crop_height = width, height
    if width / height < RATIO[0]:
        crop_height = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        crop_width = round(height * RATIO[1])
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return Crop(top, left, crop_height, crop_width, mirrored)


def training_view(photo: Tensor, number: int, size: int) -> Tensor:
    """Return a view of a photo, (3, H, W) uint8, as (3, size, size) uint8."""
    crop = draw_crop(number, *photo.shape[1:])
    rows = slice(crop.top, crop.top + crop.height)
    view = _resize(photo[:, rows, crop.left : crop.left + crop.width], size, size)
    return view.flip(2) if crop.mirrored else view


def evaluation_view(photo: Tensor, size: int) -> Tensor:
    """Return a photo, (3, H, W) uint8, as an evaluation sees it, (3, size, size) uint8."""
    height, width = photo.shape[1:]
    shorter = round(size * TEST_SIDE / TEST_CROP)
    longer = int(shorter * max(height, width) / min(height, width))
    new_height, new_width = (shorter, longer) if height <= width else (longer, shorter)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return _resize(photo, new_height, new_width)[:, top : top + size, left : left + size]


def _resize(photo: Tensor, height: int, width: int) -> Tensor:
    """Resize a photo in integer arithmetic."""
    # torch is fast for uint8 if channels are last.
    pixels = photo[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0]
