"""The cluttered digits follow their law, and their parts share no digit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skd.data import cluttered_digits, load_dataset
from skd.data.images import DataError, Images, limit_training_images, validation_split
from skd.randomness import expand_words, random_words, uniforms
from skd.study.spec import DatasetSpec


@pytest.fixture(scope="module")
def images() -> Images:
    return cluttered_digits.load(Path())


def sample(digit: np.ndarray, x: float, y: float) -> float:
    """Interpolate a digit at a point, in pixels from its centre; black outside."""
    column, row = x + 3.5, y + 3.5
    left, top = math.floor(column), math.floor(row)
    total = 0.0
    for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= r < 8 and 0 <= c < 8:
            total += (1 - abs(row - r)) * (1 - abs(column - c)) * digit[r, c]
    return total


def expected(digits: np.ndarray, index: int, numbers: list[float]) -> np.ndarray:
    """Render one image pixel by pixel from the law, given its uniform numbers."""
    scale, turn = lambda u: 1.1 + 0.5 * u, lambda u: math.radians(40 * u - 20)
    own = numbers[:5]
    layers = [(digits[index], own, 4 * own[2] - 2, 4 * own[3] - 2, 1.0)]
    for first in (5, 10, 15):
        other = numbers[first : first + 5]
        distance, direction = 7 + 2 * other[3], 2 * math.pi * other[2]
        chosen = (index + 1 + int(other[4] * (len(digits) - 1))) % len(digits)
        x, y = distance * math.cos(direction), distance * math.sin(direction)
        layers.append((digits[chosen], other, x, y, 0.6))
    contrast, noise = 0.4 + 0.5 * own[4], numbers[20:]
    result = np.empty((16, 16))
    for row in range(16):
        for column in range(16):
            brightest = 0.0
            for digit, drawn, x, y, factor in layers:
                angle, size = turn(drawn[1]), scale(drawn[0])
                dx, dy = column - 7.5 - x, row - 7.5 - y
                across = (math.cos(angle) * dx + math.sin(angle) * dy) / size
                down = (-math.sin(angle) * dx + math.cos(angle) * dy) / size
                brightest = max(brightest, factor * sample(digit, across, down))
            place = 16 * row + column
            radius = math.sqrt(-2 * math.log(1 - noise[place]))
            normal = radius * math.cos(2 * math.pi * noise[256 + place])
            result[row, column] = 0.1 + contrast * brightest + 0.1 * normal
    return 255 * result.clip(0, 1)


def test_an_image_follows_the_law() -> None:
    digits = load_digits().images[:5] / 16
    rendered = cluttered_digits.render(torch.from_numpy(digits)[:, None], 2, "law")
    assert torch.equal(rendered, rendered[:, :1].expand_as(rendered))
    words = expand_words(random_words(0, "law", 0, 10), 20 + 512)
    for index in (0, 4, 7):
        reference = expected(digits, index % 5, uniforms(words)[index].tolist())
        # Half a grey value of rounding, and as much again where two roundings differ.
        assert np.abs(rendered[index, 0].numpy() - reference).max() <= 0.5 + 1e-6


def test_the_parts_have_their_sizes_classes_and_constants(images: Images) -> None:
    facts = cluttered_digits.FACTS
    assert images.train_images.shape == (facts.train_images, 3, 16, 16) == (4000, 3, 16, 16)
    assert images.test_images.shape == (facts.test_images, 3, 16, 16) == (1594, 3, 16, 16)
    for labels in (images.train_labels, images.test_labels):
        counts = torch.bincount(labels)
        assert counts.min() > 0.85 * counts.max()
    scaled = images.train_images.double() / 255
    assert scaled.mean().item() == pytest.approx(images.mean[0], abs=0.001)
    assert scaled.std().item() == pytest.approx(images.std[0], abs=0.001)


def test_no_digit_is_in_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[torch.Tensor] = []

    def keep(digits: torch.Tensor, renderings: int, purpose: str) -> torch.Tensor:
        rendered.append(digits)
        return torch.zeros(renderings * len(digits), 3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr(cluttered_digits, "render", keep)
    cluttered_digits.load(Path())
    train, test = ([digit.numpy().tobytes() for digit in part] for part in rendered)
    every = sorted((digit / 16).tobytes() for digit in load_digits().images)
    assert sorted(train + test) == every  # all digits of scikit-learn differ
    assert len(set(every)) == 1797


def test_loading_does_not_depend_on_the_global_generators(images: Images) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    again = load_dataset(DatasetSpec(name="cluttered_digits"))
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(images, part), getattr(again, part))


def test_the_validation_split_holds_out_whole_digits(images: Images) -> None:
    # Each image shows the number of its digit, so that the parts tell which digits they have.
    numbers = images.groups.to(torch.int32)
    marked = torch.stack([numbers % 256, numbers // 256, numbers * 0], 1).to(torch.uint8)
    held_out = validation_split(
        Images(
            marked[:, :, None, None],
            images.train_labels,
            images.test_images,
            images.test_labels,
            images.classes,
            images.mean,
            images.std,
            groups=images.groups,
        )
    )

    def digits(pixels: torch.Tensor) -> list[int]:
        low, high = pixels[:, 0, 0, 0].long(), pixels[:, 1, 0, 0].long()
        return torch.bincount(low + 256 * high, minlength=1000).tolist()

    train, test = digits(held_out.train_images), digits(held_out.test_images)
    assert {(a, b) for a, b in zip(train, test, strict=True)} == {(4, 0), (0, 4)}
    assert (sum(train), sum(test)) == (3600, 400)
    assert (torch.bincount(held_out.test_labels) - 40).abs().max() <= 4
    assert held_out.groups is None


def test_a_limit_takes_images_of_all_classes_alike(images: Images) -> None:
    limited = limit_training_images(images, 500)
    assert torch.bincount(limited.train_labels).tolist() == [50] * 10
    with pytest.raises(DataError, match="4001"):
        limit_training_images(images, 4001)
