"""Digits among parts of others, low in contrast and noisy, rendered from scikit-learn's digits.

Harder than `digits`, so that networks and methods differ after minutes of training. An image is a
rendering of one of the 1,797 embedded digits. All draws are uniform except the noise:

1. **Digit**: enlarged from 8 pixels by a factor in `SCALES`, turned by an angle in ±`TURN`, moved
   from the centre by ±`OFFSET` pixels in each direction. Bilinear, black outside.
2. **Distractors**: `DISTRACTORS` other digits of the same part (training or test), enlarged and
   turned in the same way and multiplied by `DIMMING`. Their centres lie in any direction, at a
   distance in `DISTANCES` from the image's centre. Where strokes overlap, the brighter one counts.
3. **Contrast**: the strokes times a factor in `CONTRASTS`, plus `BACKGROUND`.
4. **Noise**: Gaussian, with standard deviation `NOISE`, independent for each pixel. The result is
   clipped to [0, 1] and rounded to 8 bits.

The draws are a pure function of the part and the image's number (`skd.randomness`). Each of 1,000
digits is rendered four times for training and each of the other 797 twice for testing. The
validation split holds out whole digits, with all their renderings.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from skd.data.images import DatasetFacts, Images, stratified_order
from skd.randomness import expand_words, random_words, uniforms

TRAIN_DIGITS, TEST_DIGITS = 1000, 797
TRAIN_RENDERINGS, TEST_RENDERINGS = 4, 2
SIZE, PAD = 16, 2
SCALES = (1.1, 1.6)
TURN = 20.0  # degrees
OFFSET = 2.0  # pixels
DISTRACTORS = 3
DIMMING = 0.6
DISTANCES = (7.0, 9.0)  # pixels
CONTRASTS = (0.4, 0.9)  # 1 is the range of grey values, also below
BACKGROUND = 0.1
NOISE = 0.1
FACTS = DatasetFacts(
    num_classes=10,
    train_images=TRAIN_DIGITS * TRAIN_RENDERINGS,
    test_images=TEST_DIGITS * TEST_RENDERINGS,
    size=SIZE,
    pad=PAD,
    flip=False,
)


def load(root: Path) -> Images:
    """Render 4,000 training and 1,594 test images, (3, 16, 16). ``root`` is not used."""
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    strokes = torch.from_numpy(digits.images)[:, None] / 16
    order = stratified_order(labels, "cluttered digits, test split")
    train, test = order[:TRAIN_DIGITS], order[TRAIN_DIGITS:]
    return Images(
        train_images=render(strokes[train], TRAIN_RENDERINGS, "cluttered digits, training"),
        train_labels=labels[train].repeat(TRAIN_RENDERINGS),
        test_images=render(strokes[test], TEST_RENDERINGS, "cluttered digits, test"),
        test_labels=labels[test].repeat(TEST_RENDERINGS),
        classes=tuple(str(name) for name in digits.target_names),
        mean=(0.263,) * 3,
        std=(0.201,) * 3,
        pad=PAD,
        flip=False,
        groups=torch.arange(TRAIN_DIGITS).repeat(TRAIN_RENDERINGS),
    )


def render(digits: Tensor, renderings: int, purpose: str) -> Tensor:
    """Return renderings of digits by the law above: all digits once, then all again, and so on.

    Args:
        digits: strokes from 0 to 1, (N, 1, 8, 8) float64; N is 2 or more.
        renderings: R, the number of renderings of each digit.
        purpose: of the random stream; each part of the data set has its own.

    Returns:
        (R·N, 3, 16, 16) uint8, three equal channels.
    """
    count = renderings * len(digits)
    words = expand_words(random_words(0, purpose, 0, count), 5 * (1 + DISTRACTORS) + 2 * SIZE**2)
    drawn = torch.from_numpy(uniforms(words))
    own, others, noise = drawn.split([5, 5 * DISTRACTORS, 2 * SIZE**2], dim=1)
    places = torch.arange(len(digits)).repeat(renderings)
    strokes = _placed(digits[places], own, _between(own[:, 2:4], -OFFSET, OFFSET))
    for other in others.split(5, dim=1):
        direction = 2 * torch.pi * other[:, 2]
        unit = torch.stack([direction.cos(), direction.sin()], 1)
        steps = 1 + (other[:, 4] * (len(digits) - 1)).long()  # never to the digit itself
        distractor = digits[(places + steps) % len(digits)]
        placed = _placed(distractor, other, unit * _between(other[:, 3:4], *DISTANCES))
        strokes = torch.maximum(strokes, DIMMING * placed)
    contrast = _between(own[:, 4], *CONTRASTS)[:, None, None, None]
    grey = BACKGROUND + contrast * strokes + NOISE * _normals(noise).view_as(strokes)
    return (grey.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _placed(digits: Tensor, drawn: Tensor, centres: Tensor) -> Tensor:
    """Return digits on an empty image, (N, 1, 16, 16).

    Args:
        digits: (N, 1, 8, 8).
        drawn: numbers in [0, 1) that choose scale and angle, in the first two columns.
        centres: (N, 2), x and y from the image's centre, in pixels.
    """
    scale = _between(drawn[:, 0], *SCALES) * digits.shape[-1] / SIZE
    angle = torch.deg2rad(_between(drawn[:, 1], -TURN, TURN))
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    to_digit = turn / scale[:, None, None]  # from the image's coordinates, -1 to 1
    shift = -to_digit @ (centres * 2 / SIZE)[:, :, None]
    grid = F.affine_grid(
        torch.cat([to_digit, shift], 2), [len(digits), 1, SIZE, SIZE], align_corners=False
    )
    return F.grid_sample(digits, grid, mode="bilinear", align_corners=False)


def _between(numbers: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * numbers


def _normals(numbers: Tensor) -> Tensor:
    """Return standard normal numbers, (N, K), from uniform ones, (N, 2K) (Box and Muller 1958)."""
    radius, turn = numbers.chunk(2, dim=1)
    return (-2 * torch.log1p(-radius)).sqrt() * (2 * torch.pi * turn).cos()
