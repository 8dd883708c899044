"""CRD's negatives: which images are drawn, how many, and how often."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from baselines._contrast import Drawn
from baselines._negatives import (
    draw_by_partition,
    draw_by_topk,
    draw_with_replacement,
    draw_without_replacement,
)
from skd.common.errors import UnfitError
from tests.builders.crd import CLASSES, IMAGES, LABELS, WIDTH, generator, own_class
from tests.builders.losses import make_outputs, make_term


def coarse_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the keys of `draw_by_partition` four bits, so that most draws meet a tie."""
    real = np.random.PCG64DXSM

    def source(seed: int) -> SimpleNamespace:
        return SimpleNamespace(random_raw=lambda n: real(seed).random_raw(n) & 0x0000000F0000000F)

    monkeypatch.setattr(np.random, "PCG64DXSM", source)


@pytest.mark.parametrize("case", ["topk", "partition", "partition with ties"])
def test_without_replacement_every_other_image_is_equally_likely_and_none_of_the_own_class(
    case, monkeypatch
):
    law = draw_by_topk if case == "topk" else draw_by_partition
    if case == "partition with ties":
        coarse_keys(monkeypatch)
    own, rounds, count = own_class([0, 3]), 4000, 10
    stream = generator()
    hits = torch.zeros(own.shape)
    together = torch.zeros(IMAGES, IMAGES)
    both = 0.0
    for _ in range(rounds):
        drawn = law(own, count, stream)
        assert drawn.dtype == torch.bool
        assert drawn.sum(dim=1).tolist() == [count, count]
        assert not (drawn & own).any()
        hits += drawn
        one = drawn[0].float()
        together += torch.outer(one, one)
        both += (drawn[0] & drawn[1]).sum().item()
    others = IMAGES - IMAGES // CLASSES
    share = count / others
    for row in (0, 1):
        # Inclusions of a fixed number are negatively correlated: this variance is exact.
        counts = hits[row][~own[row]].numpy()
        variance = rounds * share * (1 - share) * others / (others - 1)
        statistic = ((counts - rounds * share) ** 2).sum() / variance
        assert stats.chi2.sf(statistic, others - 1) > 1e-4
    # Every pair of images is drawn equally often: the sets are uniform, not only the images.
    pairs = together[~own[0]][:, ~own[0]].fill_diagonal_(0).triu().numpy()
    expected = rounds * share * (count - 1) / (others - 1)
    spread = pairs[np.triu_indices(others, 1)].std()
    assert spread == pytest.approx(math.sqrt(expected), rel=0.15)
    # Anchors draw independently: of what both may draw, they share share² on average.
    common = (~own[0] & ~own[1]).sum().item()
    mean, deviation = common * share**2, math.sqrt(common * share**2 / rounds)
    assert both / rounds == pytest.approx(mean, abs=5 * deviation)


@pytest.mark.parametrize("law", [draw_by_topk, draw_by_partition])
def test_sets_are_of_k_images_for_any_sizes_and_all_others_if_there_are_but_k(law):
    for images in (2, 41, 1000):  # one row and all rows, also of odd length
        own = torch.arange(images) % 2 == torch.tensor([0, 1, 0])[:, None]
        for count in {1, images // 2}:
            drawn = law(own, count, generator())
            assert drawn.sum(dim=1).tolist() == [count] * 3
            assert not (drawn & own).any()
    assert torch.equal(law(own[:2], 500, generator()), ~own[:2])


def test_tied_keys_do_not_change_the_number_drawn(monkeypatch):
    own = own_class([0, 1, 2])
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: torch.zeros(shape).long())
    drawn = draw_by_topk(own, 12, generator())
    assert drawn.sum(dim=1).tolist() == [12, 12, 12]
    assert not (drawn & own).any()


def test_the_partition_is_for_the_cpu_and_topk_for_the_rest():
    own = own_class([0, 3])
    ours = draw_without_replacement(own, 10, generator())
    assert torch.equal(ours, draw_by_partition(own, 10, generator()))
    assert not torch.equal(ours, draw_by_topk(own, 10, generator()))
    elsewhere = draw_without_replacement(own.to("meta"), 10, generator())
    assert (elsewhere.device.type, elsewhere.shape) == ("meta", own.shape)


def test_negatives_are_listed_where_they_are_a_set_on_the_cpu():
    drawn = draw_without_replacement(own_class([0, 3, 1]), 10, generator())
    images, times = Drawn.from_counts(drawn)
    assert times is None
    assert torch.equal(torch.zeros_like(drawn).scatter(1, images, True), drawn)
    for other in (drawn.float(), drawn.to("meta")):
        assert Drawn.from_counts(other) == (None, other)


def test_with_replacement_counts_are_multinomial_over_the_other_classes():
    own, rounds, count = own_class([0, 3]), 2000, 50
    stream = generator(1)
    totals, squares = torch.zeros(own.shape), torch.zeros(own.shape)
    for _ in range(rounds):
        drawn = draw_with_replacement(own, count, stream)
        assert drawn.sum(dim=1).tolist() == [count, count]
        assert not drawn[own].any()
        totals += drawn
        squares += drawn.square()
    others = IMAGES - IMAGES // CLASSES
    p = 1 / others
    for row in (0, 1):
        counts = totals[row][~own[row]].numpy()
        assert stats.chisquare(counts).pvalue > 1e-4
        variance = (squares[row] / rounds - (totals[row] / rounds) ** 2)[~own[row]].mean().item()
        assert variance == pytest.approx(count * p * (1 - p), rel=0.1)


def test_few_candidates_are_drawn_with_replacement():
    student, teacher = (make_outputs(seed, 4, classes=CLASSES, width=WIDTH) for seed in (1, 2))
    fewest = IMAGES - IMAGES // CLASSES
    for count, law in (
        (fewest, draw_without_replacement),
        (fewest + 1, draw_with_replacement),
        (16384, draw_with_replacement),
    ):
        assert make_term("crd", student, teacher, LABELS, negatives=count).draw is law
    # Of classes of unequal size the largest decides.
    skewed = torch.tensor([0] * 30 + [1] * 10)
    assert make_term("crd", student, teacher, skewed, negatives=11).draw is draw_with_replacement
    with pytest.raises(UnfitError, match="at least two classes"):
        make_term("crd", student, teacher, torch.zeros(9, dtype=torch.int64))
