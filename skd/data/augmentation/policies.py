"""Policies of strong augmentation: which operations an image gets, and how strongly.

A choice is a pure function of the view's number (64 random bits), so that a view does not depend on
its batch. Sources:

- RandAugment (Cubuk et al. 2020, 1909.13719): n operations in turn, each uniform among 14, all of
  magnitude m of 30.
- TrivialAugment (Müller & Hutter 2021, 2103.10158), the wide space: one operation, uniform among
  14, of a uniform magnitude among 31.
- The strong view of MLKD's authors (FixMatch's RandAugment): two operations of continuous uniform
  magnitudes, then cutout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skd.data.augmentation.operations import OPERATIONS, cutout
from skd.randomness import expand_words, uniforms

LEVELS = 31
_CUTOUT_SHARE = 0.5  # largest width of the square, as a share of the image's
_WORDS = 3  # of an operation: which one, its magnitude, its sign; and of cutout


@dataclass(frozen=True)
class Choice:
    """An operation that a policy may choose, and its strength for each magnitude.

    Attributes:
        operation: a name in `OPERATIONS`.
        low, high: strength at magnitude 0 and at the largest one.
        centre: added to the strength, after its sign.
        signed: whether the strength is negative for half of the images.
        relative: whether the strength is a share of the image's width.
        whole: whether the strength is rounded to a whole number.
    """

    operation: str
    low: float = 0.0
    high: float = 0.0
    centre: float = 0.0
    signed: bool = False
    relative: bool = False
    whole: bool = False

    def strengths(self, magnitudes: np.ndarray, negative: np.ndarray, width: int) -> np.ndarray:
        """Return the strengths for some images, (B,) float64.

        Args:
            magnitudes: in [0, 1], (B,).
            negative: whether a signed strength is negative, (B,).
            width: of the images, in pixels.
        """
        strength = self.low + (self.high - self.low) * magnitudes
        if self.whole:
            strength = strength.round()
        if self.relative:
            strength = strength * width
        if self.signed:
            strength = np.where(negative, -strength, strength)
        return self.centre + strength


@dataclass(frozen=True)
class Policy:
    """What strong augmentation does to an image, given the number of its view.

    Attributes:
        choices: the operations; each is equally likely.
        applied: number of operations that an image gets, one after another.
        level: magnitude of all operations, 0 to 30; ``None``: drawn for each operation.
        continuous: whether a drawn magnitude is continuous, instead of one of 31.
        cutout: whether a square is painted at the end.
    """

    choices: tuple[Choice, ...]
    applied: int = 1
    level: int | None = None
    continuous: bool = False
    cutout: bool = False

    def draw(self, numbers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return, for each operation in turn, which one, its magnitude, and whether it is negative.

        Args:
            numbers: of the views, (B,) int64 or uint64.

        Returns:
            Triples of arrays (B,): indices of choices, magnitudes in [0, 1], and booleans.
        """
        words = expand_words(numbers.astype(np.uint64), _WORDS * self.applied)
        drawn = []
        for which, magnitude, sign in words.reshape(len(words), -1, _WORDS).transpose(1, 2, 0):
            shares = uniforms(magnitude)
            if self.level is not None:
                shares = np.full(len(words), self.level / (LEVELS - 1))
            elif not self.continuous:
                shares = np.floor(shares * LEVELS) / (LEVELS - 1)
            indices = which % np.uint64(len(self.choices))
            drawn.append((indices.astype(np.int64), shares, sign >> np.uint64(63) == 1))
        return drawn

    def __call__(self, pixels: Tensor, numbers: np.ndarray) -> Tensor:
        """Return augmented pixels. Images with the same operation are computed together.

        Args:
            pixels: (B, 3, H, W) uint8, on any device.
            numbers: of the views, (B,) int64 or uint64.
        """
        width, device = pixels.shape[3], pixels.device
        for which, magnitudes, negative in self.draw(numbers):
            result = pixels.clone()
            for index, choice in enumerate(self.choices):
                places = np.flatnonzero(which == index)
                if choice.operation == "identity" or not len(places):
                    continue
                strengths = choice.strengths(magnitudes[places], negative[places], width)
                rows = torch.from_numpy(places).to(device)
                operation = OPERATIONS[choice.operation]
                result[rows] = operation(pixels[rows], torch.from_numpy(strengths).to(device))
            pixels = result
        return self._cut_out(pixels, numbers) if self.cutout else pixels

    def _cut_out(self, pixels: Tensor, numbers: np.ndarray) -> Tensor:
        height, width = pixels.shape[2:]
        words = expand_words(numbers.astype(np.uint64), _WORDS * (self.applied + 1))[:, -_WORDS:]
        row, column, size = uniforms(words).T * [[height], [width], [_CUTOUT_SHARE * width]]
        return cutout(
            pixels, *(torch.from_numpy(part).to(pixels.device) for part in (row, column, size))
        )


def _enhancements(reach: float) -> tuple[Choice, ...]:
    return tuple(
        Choice(name, 0.0, reach, centre=1.0, signed=True)
        for name in ("brightness", "colour", "contrast", "sharpness")
    )


_PLAIN = (Choice("identity"), Choice("auto_contrast"), Choice("equalize"))

# torchvision's magnitudes: those of the paper's code, with both signs.
RANDAUGMENT_CHOICES = (
    *_PLAIN,
    *_enhancements(0.9),
    Choice("posterize", 8, 4, whole=True),
    Choice("solarize", 255, 0),
    Choice("rotate", 0, 30, signed=True),
    Choice("shear_x", 0, 0.3, signed=True),
    Choice("shear_y", 0, 0.3, signed=True),
    Choice("translate_x", 0, 150 / 331, signed=True, relative=True),
    Choice("translate_y", 0, 150 / 331, signed=True, relative=True),
)
TRIVIALAUGMENT = Policy(
    choices=(
        *_PLAIN,
        *_enhancements(0.99),
        Choice("posterize", 8, 2, whole=True),
        Choice("solarize", 255, 0),
        Choice("rotate", 0, 135, signed=True),
        Choice("shear_x", 0, 0.99, signed=True),
        Choice("shear_y", 0, 0.99, signed=True),
        Choice("translate_x", 0, 32, signed=True),  # pixels
        Choice("translate_y", 0, 32, signed=True),
    )
)
# Jin-Ying/Multi-Level-Logit-Distillation, mdistiller/dataset/cifar100.py: RandAugment(2, 10), whose
# second number has no effect there.
STRONG_VIEW = Policy(
    choices=(
        *_PLAIN,
        *(Choice(name, 0.05, 0.95) for name in ("brightness", "colour", "contrast", "sharpness")),
        Choice("posterize", 4, 8),
        Choice("solarize", 0, 256),
        Choice("rotate", -30, 30),
        Choice("shear_x", -0.3, 0.3),
        Choice("shear_y", -0.3, 0.3),
        Choice("translate_x", -0.3, 0.3, relative=True),
        Choice("translate_y", -0.3, 0.3, relative=True),
    ),
    applied=2,
    continuous=True,
    cutout=True,
)


def randaugment(operations: int, magnitude: int) -> Policy:
    """Return RandAugment with n operations of magnitude m, 0 to 30."""
    return Policy(RANDAUGMENT_CHOICES, applied=operations, level=magnitude)
