"""Mixup and CutMix: the papers' laws, and draws that depend on seed and epoch only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skd.data.mixing import CUTMIX, MIXUP, EpochMixing, draw_mixing, mix_images
from skd.data.views import epoch_order

LIKELY = 1e-3


def draw(seed: int = 0, epoch: int = 1, **changes) -> EpochMixing:
    options = {"kind": MIXUP, "alpha": 1.0, "images": 100, "batch": 32, "group": None, "size": 16}
    return draw_mixing(seed, epoch, **{**options, **changes})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(2, 32), st.none() | st.integers(2, 8), st.integers(1, 99))
def test_partners_are_permuted_within_groups_of_batches(images, batch, group, epoch):
    partners = draw(epoch=epoch, images=images, batch=batch, group=group).partners
    places = np.arange(images)
    by_batch = np.split(partners.numpy(), range(batch, images, batch))
    for own, found in zip(np.split(places % batch, range(batch, images, batch)), by_batch,
                          strict=True):  # fmt: skip
        size = group or batch
        for start in range(0, len(own), size):
            assert sorted(found[start : start + size]) == own[start : start + size].tolist()


def test_partners_are_uniform() -> None:
    drawn = [tuple(draw(seed, images=3, batch=3).partners.tolist()) for seed in range(3000)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(3)
    assert stats.chisquare(counts).pvalue > LIKELY


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixups_shares_follow_beta(alpha: float) -> None:
    shares = draw(alpha=alpha, images=4000, batch=1).shares.numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > LIKELY


def test_cutmixs_rectangles_are_the_authors() -> None:
    size, steps = 32, 5000
    drawn, plain = (draw(kind=kind, images=steps, batch=1, size=size) for kind in (CUTMIX, MIXUP))
    top, bottom, left, right = drawn.boxes.T
    for low, high in ((top, bottom), (left, right)):
        assert (low >= 0).all()
        assert (high <= size).all()
        assert (low <= high).all()
    area = (bottom - top) * (right - left)
    torch.testing.assert_close(drawn.shares, 1 - area.double() / size**2, rtol=0, atol=0)
    # Rectangles that no border cuts have sides of √(1 - λ) of the image's.
    inside = (top > 0) & (left > 0) & (bottom < size) & (right < size)
    side = (size * (1 - plain.shares).sqrt()).long() // 2 * 2
    assert inside.sum() > 500
    assert torch.equal((bottom - top)[inside], side[inside])
    assert torch.equal((right - left)[inside], side[inside])


def test_draws_are_pure_and_leave_order_and_views_alone() -> None:
    order, first = epoch_order(3, 2, 100), draw(3, 2, kind=CUTMIX)
    torch.manual_seed(1)
    np.random.seed(1)
    again = draw(3, 2, kind=CUTMIX)
    for name in ("partners", "shares", "boxes"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(order, epoch_order(3, 2, 100))
    for other in (draw(4, 2), draw(3, 3)):
        assert not torch.equal(other.partners, first.partners)
        assert not torch.equal(other.shares, draw(3, 2).shares)


def test_images_are_mixed_by_the_papers_formulas() -> None:
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    partners, share = torch.tensor([1, 0, 4, 3, 2]), torch.tensor([0.25], dtype=torch.float64)
    box = torch.tensor([2, 5, 0, 8])
    mixed = mix_images(MIXUP, images, partners, share, box)
    cut = mix_images(CUTMIX, images, partners, share, box)
    for i, partner in enumerate(partners.tolist()):
        expected = 0.25 * images[i] + 0.75 * images[partner]
        torch.testing.assert_close(mixed[i], expected, rtol=1e-6, atol=1e-6)
        expected = images[i].clone()
        expected[:, 2:5, 0:8] = images[partner, :, 2:5, 0:8]
        assert torch.equal(cut[i], expected)
    for result in (mixed, cut):
        assert result.dtype == images.dtype
        assert result.is_contiguous(memory_format=torch.channels_last)
