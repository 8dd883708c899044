"""The distribution of photos' views: torchvision's crops and pixels, drawn from a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as vision
from torchvision.transforms.v2 import functional as vision2

from skd.data.photos.random_resized_crop import (
    Crop,
    draw_crop,
    draw_photo_view_numbers,
    draw_uniforms,
    evaluation_view,
    training_view,
)
from tests.builders.photos import picture

LIKELY = 1e-3  # the seeds are fixed: none of the p-values may fall below
NUMBERS = st.integers(0, 2**63 - 1)
SIDES = st.integers(1, 700)
PINNED_NUMBERS = [
    1500500660943608183,
    6233688811506226222,
    4583259849539327006,
    6588561507458198480,
]
PINNED_CROPS = [
    Crop(top=15, left=13, height=347, width=382, mirrored=False),
    Crop(top=30, left=62, height=343, width=366, mirrored=False),
]


def written_out(number: int, height: int, width: int) -> Crop:
    """Draw a crop by torchvision's description, with NumPy's uniform numbers."""
    draws = np.random.Generator(np.random.Philox(key=number)).random(23)
    for share, log_ratio in draws[3:].reshape(10, 2):
        area = (0.08 + 0.92 * share) * height * width
        ratio = (3 / 4) * (16 / 9) ** log_ratio
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 1 <= w <= width and 1 <= h <= height:
            top = math.floor(draws[1] * (height - h + 1))
            left = math.floor(draws[2] * (width - w + 1))
            return Crop(top, left, h, w, bool(draws[0] < 0.5))
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return Crop((height - h) // 2, (width - w) // 2, h, w, bool(draws[0] < 0.5))


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def as_picture(tensor: Tensor) -> Image.Image:
    return Image.fromarray(tensor.permute(1, 2, 0).contiguous().numpy())


@settings(max_examples=300, deadline=None)
@given(NUMBERS, SIDES, SIDES)
def test_a_crop_follows_the_description_and_is_within_the_photo(number, height, width):
    crop = draw_crop(number, height, width)
    assert crop == written_out(number, height, width)
    assert 0 <= crop.top <= crop.top + crop.height <= height
    assert 0 <= crop.left <= crop.left + crop.width <= width
    assert min(crop.height, crop.width) >= 1


def test_crops_are_distributed_as_torchvisions():
    height, width, count = 375, 500, 6000
    ours = [draw_crop(n, height, width) for n in draw_photo_view_numbers(0, 1, count).tolist()]
    blank = torch.empty(3, height, width)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(blank, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(count)]
    boxes = np.array([(c.top, c.left, c.height, c.width) for c in ours], dtype=float)
    expected = np.array(theirs, dtype=float)
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: c[:, 3] / c[:, 2],
        lambda c: c[:, 0],
        lambda c: c[:, 1],
        lambda c: c[:, 0] / (height - c[:, 2] + 1),
        lambda c: c[:, 1] / (width - c[:, 3] + 1),
    ):
        assert ks_2samp(measure(boxes), measure(expected)).pvalue > LIKELY
    assert binomtest(sum(crop.mirrored for crop in ours), count).pvalue > LIKELY


def test_where_every_try_fits_area_and_ratio_are_uniform():
    # In a photo this large rounding is negligible; the largest areas fit few ratios.
    crops = [draw_crop(n, 100_000, 100_000) for n in draw_photo_view_numbers(1, 1, 6000).tolist()]
    small = [c for c in crops if c.height * c.width < 0.7 * 1e10]
    areas = [c.height * c.width / 1e10 for c in small]
    assert kstest(areas, "uniform", (0.08, 0.62)).pvalue > LIKELY
    logs = [math.log(c.width / c.height) for c in small]
    assert kstest(logs, "uniform", (-math.log(4 / 3), 2 * math.log(4 / 3))).pvalue > LIKELY


@pytest.mark.parametrize("shape", [(10, 1000), (1000, 10), (1, 300), (300, 1), (1, 1)])
def test_where_no_try_fits_it_is_torchvisions_central_crop(shape):
    expected = RandomResizedCrop.get_params(torch.empty(3, *shape), (0.08, 1), (3 / 4, 4 / 3))
    crop = draw_crop(7, *shape)
    assert (crop.top, crop.left, crop.height, crop.width) == tuple(expected)


def test_numbers_are_pure_in_seed_and_epoch_and_pinned():
    numbers = draw_photo_view_numbers(0, 1, 4)
    assert numbers.dtype == torch.int64
    assert bool((draw_photo_view_numbers(3, 9, 10_000) >= 0).all())
    assert torch.equal(numbers, draw_photo_view_numbers(0, 1, 9)[:4])
    for other in (draw_photo_view_numbers(1, 1, 4), draw_photo_view_numbers(0, 2, 4)):
        assert not torch.equal(numbers, other)
    # Stored runs depend on these crops: with others no run could be resumed or repeated.
    assert numbers.tolist() == PINNED_NUMBERS
    assert [draw_crop(n, 375, 500) for n in PINNED_NUMBERS[:2]] == PINNED_CROPS


def test_uniforms_are_in_the_half_open_interval_and_their_neighbours_unrelated():
    drawn = np.array([draw_uniforms(n) for n in range(2000)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.T:
        assert kstest(column, "uniform").pvalue > LIKELY
    assert abs(np.corrcoef(drawn[:-1, 1], drawn[1:, 1])[0, 1]) < 0.08


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (30, 41), (300, 20)])
def test_views_are_torchvisions_pixels(shape):
    photo = pixels(picture(3, shape[1], shape[0]))
    mirrored = set()
    for number in draw_photo_view_numbers(5, 2, 6).tolist():
        crop = draw_crop(number, *shape)
        place = (crop.top, crop.left, crop.height, crop.width)
        expected = vision2.resized_crop(photo, *place, [96, 96], antialias=True)
        view = training_view(photo, number, 96)
        assert view.shape == (3, 96, 96)
        assert view.dtype == torch.uint8
        assert torch.equal(view, expected.flip(2) if crop.mirrored else expected)
        by_pil = vision.resized_crop(as_picture(photo), *place, [96, 96])
        away = (pixels(by_pil).int() - expected.int()).abs()
        assert away.max() <= 2  # other rounding of the filter's weights
        assert away.float().mean() < 0.1
        mirrored.add(crop.mirrored)
    assert mirrored == {True, False}


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (256, 256), (255, 257), (40, 900)])
@pytest.mark.parametrize(("size", "side"), [(224, 256), (112, 128), (64, 73)])
def test_what_an_evaluation_sees_is_torchvisions(shape, size, side):
    photo = pixels(picture(4, shape[1], shape[0]))
    resized = vision2.resize(photo, [side], antialias=True)
    expected = vision2.center_crop(resized, [size, size])
    assert torch.equal(evaluation_view(photo, size), expected)


def test_nothing_global_is_read_or_moved():
    photo, crops = pixels(picture(1)), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
        crops.append(training_view(photo, 12345, 32))
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert torch.equal(*crops)
