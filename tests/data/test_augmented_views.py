"""Strongly augmented views in training: the crops of plain views, whatever the batches are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from skd.data import load_dataset as load_images
from skd.data import make_views, strong_views, training_views
from skd.data.augmentation.policies import STRONG_VIEW, TRIVIALAUGMENT
from skd.data.augmented_views import BLOCK, AugmentedViews
from skd.data.views import PixelViews, epoch_order
from skd.study.spec import DatasetSpec, Recipe

CPU = torch.device("cpu")
IMAGES = load_images(DatasetSpec(name="digits", train_limit=80))
PLAIN = PixelViews(IMAGES, CPU)


def scheduled(views: AugmentedViews, size: int, first: int = 0) -> list[Tensor]:
    """Return the batches of an epoch, from one of them on, as a training reads them."""
    order, numbers = epoch_order(0, 1, 80), views.draw_epoch(0, 1)
    batches = [(part, numbers[part]) for part in order.split(size)][first:]
    views.schedule_batches(iter(batches), size)
    result = []
    for batch in batches:
        views.load_next_batch()
        result.append(views.batch(*batch).clone())
    return result


@pytest.mark.parametrize("size", [1, 7, 64, 80])
def test_a_view_does_not_depend_on_batches_or_blocks(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BLOCK, "cpu", 20)
    views = AugmentedViews(PLAIN, TRIVIALAUGMENT)
    order, numbers = epoch_order(0, 1, 80), views.draw_epoch(0, 1)
    whole = views.batch(order, numbers[order])  # made now: nothing has been loaded
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.cat(scheduled(views, size)), whole)
    if size == 7:
        assert torch.equal(torch.cat(scheduled(views, size, first=3)), whole[21:])
    with pytest.raises(ValueError, match="no next batch"):
        views.load_next_batch()


def test_crops_are_those_of_plain_views_of_the_seed() -> None:
    numbers = AugmentedViews(PLAIN, TRIVIALAUGMENT).draw_epoch(3, 2)
    indices = torch.arange(80)
    crops = PLAIN.pixels(indices, PLAIN.draw_epoch(3, 2))
    expected = PLAIN.normalise(TRIVIALAUGMENT(crops, numbers.numpy()))
    views = AugmentedViews(PLAIN, TRIVIALAUGMENT)
    assert torch.equal(views.batch(indices, numbers), expected)
    assert not torch.equal(views.batch(indices, numbers), PLAIN.normalise(crops))
    assert views.views_per_image == 0


def test_strong_views_are_drawn_apart_from_the_views() -> None:
    plain, strong = make_views(IMAGES, CPU), strong_views(make_views(IMAGES, CPU))
    weak = training_views(plain, Recipe())
    assert weak is plain
    assert isinstance(strong, AugmentedViews)
    assert strong._policy is STRONG_VIEW
    again = training_views(plain, Recipe(augmentation="trivialaugment")).draw_epoch(0, 1)
    assert not np.isin(strong.draw_epoch(0, 1).numpy(), again.numpy()).any()


def test_a_batch_that_was_not_announced_is_refused() -> None:
    views = AugmentedViews(PLAIN, TRIVIALAUGMENT)
    scheduled(views, 40)
    with pytest.raises(ValueError, match="not those that load_next_batch"):
        views.batch(torch.arange(40), views.draw_epoch(0, 1)[:40])
