"""Strong augmentation: PIL's exact pixels, and uniform choices that depend on the number alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy.stats import chisquare, kstest
from torch import Tensor
from torchvision.transforms import TrivialAugmentWide
from torchvision.transforms.autoaugment import RandAugment

from skd.data.augmentation.operations import CUTOUT_COLOUR, OPERATIONS, cutout
from skd.data.augmentation.policies import (
    LEVELS,
    RANDAUGMENT_CHOICES,
    STRONG_VIEW,
    TRIVIALAUGMENT,
    Policy,
    randaugment,
)
from skd.randomness import expand_words, random_words, uniforms

LIKELY = 1e-3
Reference = Callable[[Image.Image, float], Image.Image]


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


BY_PIL: dict[str, Reference] = {
    "identity": lambda image, v: image,
    "auto_contrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "colour": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "rotate": lambda image, v: image.rotate(v),
    "shear_x": lambda image, v: affine(image, 1, v, 0, 0, 1, 0),
    "shear_y": lambda image, v: affine(image, 1, 0, 0, v, 1, 0),
    "translate_x": lambda image, v: affine(image, 1, 0, v, 0, 1, 0),
    "translate_y": lambda image, v: affine(image, 1, 0, 0, 0, 1, v),
}


def make_pixels(count: int, size: int, seed: int = 0) -> Tensor:
    """Return noise, smooth, dark, two-valued and uniform images, (count, 3, size, size) uint8."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (count, 3, size, size))
    ramp = np.linspace(0, 255, size)[:, None] * np.linspace(0.2, 1, size) * np.ones((3, 1, 1))
    kinds = [noise, np.broadcast_to(ramp, noise.shape), noise // 8 + 3, 255 * (noise > 200)]
    kinds.append(np.broadcast_to(noise[:, :, :1, :1], noise.shape))
    kind = np.arange(count) % len(kinds)
    return torch.from_numpy(np.stack(kinds)[kind, np.arange(count)].astype(np.uint8))


def as_pil(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def strengths_of(policy: Policy, operation: str, size: int) -> np.ndarray:
    """Return all strengths with which a policy applies an operation, or many of them."""
    (choice,) = (choice for choice in policy.choices if choice.operation == operation)
    magnitudes = np.linspace(0, 1, 97 if policy.continuous else LEVELS)
    signs = (np.zeros(len(magnitudes), bool), np.ones(len(magnitudes), bool))
    return np.concatenate([choice.strengths(magnitudes, negative, size) for negative in signs])


@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_pils_pixels(operation: str, size: int) -> None:
    policies = (randaugment(2, 9), TRIVIALAUGMENT, STRONG_VIEW)
    strengths = np.concatenate([strengths_of(policy, operation, size) for policy in policies])
    pixels = make_pixels(len(strengths), size)
    result = OPERATIONS[operation](pixels, torch.from_numpy(strengths))
    assert result.dtype == torch.uint8
    for before, after, strength in zip(pixels, result, strengths.tolist(), strict=True):
        expected = from_pil(BY_PIL[operation](as_pil(before), strength))
        assert torch.equal(after, expected), strength


def test_cutout_is_the_authors_square() -> None:
    random, size = np.random.default_rng(1), 32
    row, column = random.uniform(0, size, (2, 200))
    width = random.uniform(0, size / 2, 200)
    width[:3] = 0
    pixels = make_pixels(200, size)
    result = cutout(pixels, *map(torch.from_numpy, (row, column, width)))
    for i in range(200):
        image = as_pil(pixels[i])
        if width[i] > 0:
            left, top = (int(max(0, at - width[i] / 2)) for at in (column[i], row[i]))
            corner = min(size, left + width[i]), min(size, top + width[i])
            ImageDraw.Draw(image).rectangle((left, top, *corner), CUTOUT_COLOUR)
        assert torch.equal(result[i], from_pil(image))


@pytest.mark.parametrize(
    ("policy", "vision", "bins"),
    [
        (randaugment(2, 9), RandAugment()._augmentation_space(LEVELS, (32, 32)), LEVELS),
        (TRIVIALAUGMENT, TrivialAugmentWide()._augmentation_space(LEVELS), LEVELS),
    ],
)
def test_spaces_are_torchvisions(policy: Policy, vision: dict, bins: int) -> None:
    names = {
        "Color": "colour",
        "AutoContrast": "auto_contrast",
        **{f"{name}{axis}": f"{name.lower()}_{axis.lower()}"
           for name in ("Shear", "Translate") for axis in "XY"},
    }  # fmt: skip
    spaces = {names.get(name, name.lower()): space for name, space in vision.items()}
    assert spaces.keys() == {choice.operation for choice in policy.choices}
    for choice in policy.choices:
        magnitudes, signed = spaces[choice.operation]
        assert choice.signed == signed
        if magnitudes.ndim:
            share = np.arange(bins) / (bins - 1)
            strengths = choice.strengths(share, np.zeros(bins, bool), 32) - choice.centre
            np.testing.assert_allclose(strengths, magnitudes.double().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", [randaugment(3, 9), TRIVIALAUGMENT, STRONG_VIEW])
def test_a_view_depends_on_its_number_only(policy: Policy) -> None:
    pixels, numbers = make_pixels(40, 16), random_words(0, "views", 1, 40)
    whole = policy(pixels, numbers)
    before = torch.get_rng_state()
    order = np.random.default_rng(0).permutation(40)
    assert torch.equal(policy(pixels[order], numbers[order]), whole[order])
    for size in (1, 7):
        parts = zip(pixels.split(size), np.split(numbers, range(size, 40, size)), strict=True)
        assert torch.equal(torch.cat([policy(*part) for part in parts]), whole)
    assert torch.equal(policy(pixels, numbers.view(np.int64)), whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert (policy(pixels, random_words(0, "views", 2, 40)) != whole).any()
    assert torch.equal(pixels, make_pixels(40, 16))


def test_operations_are_applied_one_after_another() -> None:
    policy, numbers = randaugment(3, 12), random_words(3, "views", 1, 60)
    pixels = make_pixels(60, 16)
    result, drawn = policy(pixels, numbers), policy.draw(numbers)
    for i in range(60):
        image = as_pil(pixels[i])
        for which, magnitudes, negative in drawn:
            choice = policy.choices[which[i]]
            strength = choice.strengths(magnitudes[i], negative[i], 16).item()
            image = BY_PIL[choice.operation](image, strength)
        assert torch.equal(result[i], from_pil(image))


def test_choices_are_uniform_and_independent() -> None:
    numbers = random_words(0, "views", 1, 50_000)
    ((which, magnitudes, negative),) = TRIVIALAUGMENT.draw(numbers)
    levels = np.rint(magnitudes * (LEVELS - 1)).astype(int)
    joint = (which * LEVELS + levels) * 2 + negative
    assert chisquare(np.bincount(joint, minlength=14 * LEVELS * 2)).pvalue > LIKELY
    crops = (numbers % np.uint64(162)).astype(int)  # of the same number
    assert chisquare(np.bincount(which * 162 + crops, minlength=14 * 162)).pvalue > LIKELY
    first, second = STRONG_VIEW.draw(numbers)
    assert chisquare(np.bincount(first[0] * 14 + second[0], minlength=196)).pvalue > LIKELY
    assert kstest(first[1], "uniform").pvalue > LIKELY
    assert np.corrcoef(first[1], second[1])[0, 1] == pytest.approx(0, abs=0.02)
    assert {*randaugment(2, 9).draw(numbers)[0][1]} == {0.3}


def test_expanded_words_are_splitmix64s() -> None:
    # The first outputs for the seed 1234567, as printed by the algorithm's reference program.
    words = expand_words(np.array([1234567, 0], np.uint64), 3)
    assert words[0].tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert words[1, 0] == 0xE220A8397B1DCDAF
    assert 0 <= uniforms(words).min() <= uniforms(words).max() < 1


def test_every_policy_chooses_among_the_papers_fourteen() -> None:
    for policy in (randaugment(1, 0), TRIVIALAUGMENT, STRONG_VIEW):
        assert {choice.operation for choice in policy.choices} == OPERATIONS.keys()
    assert len(RANDAUGMENT_CHOICES) == 14
