"""CRD among very many images: the law of the direct draw, and scores of gathered entries."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import baselines._contrast
import baselines._negatives
import baselines.crd
from baselines._contrast import Drawn, Listed
from baselines._negatives import OtherClasses, draws_for, first_different
from baselines.crd import CRD
from skd.losses.term import Alone
from skd.models.network import Outputs
from tests.builders.losses import draw, make_batch, make_outputs, make_term

IMAGES = 40
# Classes of 4, 9, 13 and 14 images, in random order.
LABELS = torch.tensor([0] * 4 + [1] * 9 + [2] * 13 + [3] * 14)[
    torch.from_numpy(np.random.default_rng(0).permutation(IMAGES))
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The distribution.


@pytest.mark.parametrize("case", ["plain", "often short"])
def test_every_set_of_other_images_is_equally_likely(case, monkeypatch):
    if case == "often short":  # a draw without slack mostly falls short and is repeated
        monkeypatch.setattr(baselines._negatives, "draws_for", lambda count, _: count + 2)
    others, target = OtherClasses(LABELS), torch.tensor([0, 3])
    rounds, count = 2000, 10
    stream = generator()
    hits, firsts = torch.zeros(2, IMAGES), torch.zeros(2, IMAGES)
    together = torch.zeros(IMAGES, IMAGES)
    both = 0.0
    for _ in range(rounds):
        images = others.draw(target, count, stream)
        drawn = torch.zeros(2, IMAGES).scatter_(1, images, 1)
        assert drawn.sum(dim=1).tolist() == [count, count]  # so they are different
        assert not (LABELS[images] == target[:, None]).any()
        hits += drawn
        firsts.scatter_add_(1, images[:, :1], torch.ones(2, 1))
        together += torch.outer(drawn[0], drawn[0])
        both += (drawn[0] * drawn[1]).sum().item()
    for row in (0, 1):
        outside = target[row] != LABELS
        n = int(outside.sum())
        share = count / n
        # Inclusions of a fixed number are negatively correlated: this variance is exact.
        variance = rounds * share * (1 - share) * n / (n - 1)
        statistic = ((hits[row][outside] - rounds * share).square().sum() / variance).item()
        assert stats.chi2.sf(statistic, n - 1) > 1e-4
        assert stats.chisquare(firsts[row][outside].numpy()).pvalue > 1e-4
    outside = LABELS != 0
    n = int(outside.sum())
    pairs = together[outside][:, outside].numpy()[np.triu_indices(n, 1)]
    expected = rounds * count * (count - 1) / n / (n - 1)
    assert pairs.mean() == pytest.approx(expected)
    assert pairs.std() == pytest.approx(math.sqrt(expected), rel=0.15)
    # Anchors draw independently.
    common, shares = int(((LABELS != 0) & (LABELS != 3)).sum()), count / 36 * count / 26
    mean, deviation = common * shares, math.sqrt(common * shares / rounds)
    assert both / rounds == pytest.approx(mean, abs=5 * deviation)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(20, 200), st.integers(1, 12))
def test_exactly_k_different_images_of_other_classes(seed, classes, images, anchors):
    numbers = np.random.default_rng(seed)
    labels = torch.from_numpy(numbers.integers(0, classes, images))
    labels[:classes] = torch.arange(classes)
    others = OtherClasses(labels)
    fewest = images - int(torch.bincount(labels).max())
    assert others.fewest == fewest
    target = torch.from_numpy(numbers.integers(0, classes, anchors))
    for count in {1, max(1, fewest // 2)} if fewest > 1 else ():
        negatives = others.draw(target, count, generator(seed))
        assert negatives.shape == (anchors, count)
        assert all(len(set(row)) == count for row in negatives.tolist())
        assert (labels[negatives] != target[:, None]).all()
        assert torch.equal(negatives, others.draw(target, count, generator(seed)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 4))
def test_the_first_different_numbers_are_those_a_reader_finds(seed, length, most, rows):
    numbers = np.random.default_rng(seed)
    images = torch.from_numpy(numbers.integers(0, most, (rows, length)))
    if seed % 2:
        images += 2**31 - most  # the largest that fit
    count = int(numbers.integers(1, length + 1))
    chosen, repeated = first_different(images, count)
    for row, first, again in zip(images.tolist(), chosen.tolist(), repeated.tolist(), strict=True):
        different = list(dict.fromkeys(row))[:count]
        assert first[: len(different)] == different
        assert again == [place >= len(different) for place in range(count)]


@pytest.mark.parametrize(
    ("count", "images"), [(16384, 1_279_867), (100_000, 200_001), (1, 2), (5, 10), (20, 1000)]
)
def test_draws_fall_short_as_good_as_never_and_are_not_many_more(count, images):
    draws, p = draws_for(count, images), 1 - count / images
    assert stats.binom.cdf(count - 1, draws, p) <= 1e-18
    assert stats.binom.cdf(count - 1, int(0.98 * draws) - 2, p) > 1e-18
    if count > 10_000:
        assert draws < 1.03 * count / p + 200


def test_no_number_of_draws_is_enough_for_more_images_than_there_are():
    for images in (5, 4):
        with pytest.raises(ValueError, match=f"more than 5 images, got {images}"):
            draws_for(5, images)


# The scores.


def reference(anchors: Tensor, bank: Tensor, images: Tensor) -> np.ndarray:
    rows = zip(anchors.tolist(), images.tolist(), strict=True)
    scores = [
        [
            math.fsum(a * b for a, b in zip(anchor, bank[image].tolist(), strict=True))
            for image in own
        ]
        for anchor, own in rows
    ]
    return np.array(scores)


@pytest.mark.parametrize("limit", [1, 700, 2**26])
def test_gathered_scores_and_their_sums_follow_the_formula_and_fit_the_limit(limit, monkeypatch):
    monkeypatch.setattr(baselines._contrast, "GATHERED_BYTES", limit)
    anchors, bank, slopes = draw(0, (5, 3)), draw(1, (IMAGES, 3)), draw(2, (5, 9))
    images = OtherClasses(LABELS).draw(LABELS[:5], 9, generator())
    gathered, select = [], Tensor.index_select
    monkeypatch.setattr(
        Tensor, "index_select", lambda *given: gathered.append(select(*given)) or gathered[-1]
    )
    listed = Listed(images)
    indices = torch.arange(5)
    positive, negative = listed.scores(anchors, bank, indices)
    pulled = listed.weighted_sums(slopes, bank)
    assert max(part.nbytes for part in gathered) <= max(limit, 9 * 3 * 8)
    assert len(gathered) == {1: 10, 700: 4, 2**26: 2}[limit]
    own = reference(anchors, bank, indices[:, None])[:, 0]
    np.testing.assert_allclose(positive, own, rtol=1e-12)
    np.testing.assert_allclose(negative, reference(anchors, bank, images), rtol=1e-12, atol=1e-14)
    sums = [(slopes[row, :, None] * bank[images[row]]).sum(dim=0) for row in range(5)]
    torch.testing.assert_close(pulled, torch.stack(sums), rtol=1e-12, atol=1e-14)
    # The same negatives among all images, as a set and as counts.
    drawn = torch.zeros(5, IMAGES, dtype=torch.bool).scatter_(1, images, True)
    order = images.argsort(dim=1)
    for other in (Drawn.from_counts(drawn), Drawn(None, drawn.double())):
        same, scores = other.scores(anchors, bank, indices)
        torch.testing.assert_close(same, positive)
        if other.images is None:
            torch.testing.assert_close(scores.gather(1, images), negative)
            spread = torch.zeros_like(scores).scatter_(1, images, slopes)
        else:
            torch.testing.assert_close(scores, negative.gather(1, order))
            spread = slopes.gather(1, order)
        torch.testing.assert_close(other.weighted_sums(spread, bank), pulled)


# The term.


def make(
    monkeypatch: pytest.MonkeyPatch, most: int = 30, **changes
) -> tuple[CRD, Outputs, Outputs]:
    monkeypatch.setattr(baselines.crd, "MOST_SCORED", most)
    student, teacher = (make_outputs(seed, 6, classes=4, width=5) for seed in (1, 2))
    chosen = {"negatives": 12, "width": 7, "temperature": 0.3, **changes}
    return make_term("crd", student, teacher, LABELS, **chosen), student, teacher


def test_many_images_are_listed_unless_the_negatives_are_most_of_them(monkeypatch):
    assert baselines.crd.MOST_SCORED == 200_000
    for most, count, listed in ((39, 13, True), (40, 13, False), (39, 14, False)):
        crd, *_ = make(monkeypatch, most, negatives=count)  # 26 are outside the largest class
        assert (crd.others is not None) == listed
        buffers = {"student_bank", "teacher_bank", "log_normalisers"}
        layers = {
            f"embed_{side}.{p}" for side in ("student", "teacher") for p in ("weight", "bias")
        }
        assert set(crd.state_dict()) == buffers | layers


def test_two_steps_are_those_of_the_formula_and_of_all_images_scored(monkeypatch):
    """Compare with autograd from probabilities for the drawn negatives, then for all."""
    crd, student, teacher = make(monkeypatch)
    dense, *_ = make(monkeypatch, most=IMAGES)
    noise, log_z = 12 / IMAGES, {}
    for step in range(2):
        places = torch.arange(6) + 7 * step
        batch = make_batch(student, teacher, LABELS[places], indices=places)
        batch.draws.set_step(1, step)
        images = crd.others.draw(batch.target, 12, batch.draws.generator("CRD's negatives"))
        expected = 0.0
        sides = (
            (crd.embed_student(student.pooled), crd.teacher_bank.clone()),
            (crd.embed_teacher(teacher.pooled), crd.student_bank.clone()),
        )
        for side, (vectors, bank) in enumerate(sides):
            anchors = vectors / vectors.norm(dim=1, keepdim=True)
            scores = (anchors @ bank.T / 0.3).exp()
            both = scores.gather(1, torch.cat([places[:, None], images], dim=1))
            z = log_z.setdefault(side, both.detach().mean() * IMAGES)
            p = both / z
            positive, negative = p[:, 0], p[:, 1:]
            contrast = (positive / (positive + noise)).log()
            contrast = contrast + (noise / (negative + noise)).log().sum(dim=1)
            expected = expected - contrast.mean()
        inputs = [*crd.parameters(), student.pooled, teacher.pooled]
        slopes = torch.autograd.grad(expected, inputs)
        batch.draws.set_step(1, step)
        loss = crd(batch)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        torch.testing.assert_close(torch.autograd.grad(loss, inputs), slopes, rtol=1e-9, atol=1e-12)
        crd.after_step(Alone())
        drawn = torch.zeros(6, IMAGES, dtype=torch.bool).scatter_(1, images, True)
        monkeypatch.setattr(dense, "draw", lambda *_, drawn=drawn: drawn)
        loss = dense(batch)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        inputs = [*dense.parameters(), student.pooled, teacher.pooled]
        torch.testing.assert_close(torch.autograd.grad(loss, inputs), slopes, rtol=1e-9, atol=1e-12)
        dense.after_step(Alone())
        for name, value in dense.state_dict().items():
            torch.testing.assert_close(crd.state_dict()[name], value)


def test_away_from_the_cpu_a_step_asks_the_device_for_nothing(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has no autocast
    crd, *outputs = make(monkeypatch)
    crd.to("meta")
    student, teacher = (
        Outputs(side.logits, (), (), side.pooled.detach().to("meta").requires_grad_())
        for side in outputs
    )
    places = torch.arange(6, device="meta")
    loss = crd(make_batch(student, teacher, places, indices=places))
    loss.backward()
    crd.after_step(Alone())
    assert (loss.device.type, loss.shape) == ("meta", ())
