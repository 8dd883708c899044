"""CRD: the loss against loops, the sampling law by its frequencies, the banks step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from handmade import draw, make_batch, make_outputs, make_term
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from baselines.crd import (
    CRD,
    contrast_loss,
    draw_with_replacement,
    draw_without_replacement,
)
from skd.randomness import Draws
from skd.terms import UnfitError

IMAGES, CLASSES, WIDTH = 40, 5, 6
LABELS = torch.arange(IMAGES) % CLASSES


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The loss.


def reference(positive: Tensor, scores: Tensor, drawn: Tensor, noise: float) -> float:
    """The NCE objective of the reference page, from probabilities, in loops."""
    total = 0.0
    for row, own in enumerate(positive.tolist()):
        p = math.exp(own)
        total -= math.log(p / (p + noise))
        for image, score in enumerate(scores[row].tolist()):
            q = math.exp(score)
            total -= drawn[row, image].item() * math.log(noise / (q + noise))
    return total / len(positive)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 9), st.floats(0.01, 20))
def test_the_loss_and_its_gradients_follow_the_formula(seed, batch, images, noise):
    positive, scores = draw(seed, (batch,), 4), draw(seed + 1, (batch, images), 4)
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (batch, images)))
    ours = [value.clone().requires_grad_() for value in (positive, scores)]
    loss = contrast_loss(*ours, drawn, noise)
    loss.backward()
    assert loss.item() == pytest.approx(reference(positive, scores, drawn, noise), rel=1e-9)
    # d/dx of -log P/(P+c) is -c/(P+c), and of -log c/(P+c) is P/(P+c), with P = exp(x)
    p, q = positive.exp(), scores.exp()
    torch.testing.assert_close(ours[0].grad, -noise / (p + noise) / batch)
    torch.testing.assert_close(ours[1].grad, drawn * q / (q + noise) / batch)


def test_the_loss_is_finite_for_extreme_scores():
    for value in (100.0, -100.0):
        scores = torch.full((2, 3), value, requires_grad=True)
        loss = contrast_loss(-scores[:, 0], scores, torch.ones(2, 3), 0.3)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(scores.grad).all()


# The sampling law.


def own_class(anchors: list[int]) -> Tensor:
    return torch.tensor(anchors)[:, None] == LABELS


def test_without_replacement_every_other_image_is_equally_likely_and_none_of_the_own_class():
    own, rounds, count = own_class([0, 3]), 4000, 10
    stream = generator()
    hits = torch.zeros(own.shape)
    together = torch.zeros(IMAGES, IMAGES)
    both = 0.0
    for _ in range(rounds):
        drawn = draw_without_replacement(own, count, stream)
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
        seen = hits[row][~own[row]].numpy()
        variance = rounds * share * (1 - share) * others / (others - 1)
        statistic = ((seen - rounds * share) ** 2).sum() / variance
        assert stats.chi2.sf(statistic, others - 1) > 1e-4
    # Every pair of images comes together equally often: the sets are uniform, not only the images.
    pairs = together[~own[0]][:, ~own[0]].fill_diagonal_(0).triu().numpy()
    expected = rounds * share * (count - 1) / (others - 1)
    spread = pairs[np.triu_indices(others, 1)].std()
    assert spread == pytest.approx(math.sqrt(expected), rel=0.15)
    # Anchors draw independently: of what both may draw, they share share² on average.
    common = (~own[0] & ~own[1]).sum().item()
    mean, deviation = common * share**2, math.sqrt(common * share**2 / rounds)
    assert both / rounds == pytest.approx(mean, abs=5 * deviation)


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
        seen = totals[row][~own[row]].numpy()
        assert stats.chisquare(seen).pvalue > 1e-4
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


# The term: banks, normalisers, modules.


def make(**changes) -> tuple[CRD, list]:
    """A small CRD and two batches of images 0–3 and 8–11."""
    chosen = {"negatives": 12, "width": 7, **changes}
    outputs = [make_outputs(seed, 4, classes=CLASSES, width=WIDTH) for seed in (1, 2, 3, 4)]
    crd = make_term("crd", *outputs[:2], LABELS, **chosen)
    batches = []
    for step, places in enumerate((torch.arange(4), torch.arange(8, 12))):
        batch = make_batch(*outputs[2 * step : 2 * step + 2], LABELS[places], indices=places)
        batches.append(batch)
        batch.draws.go_to(1, step)
    return crd, batches


def embedded(layer: torch.nn.Linear, pooled: Tensor) -> np.ndarray:
    vectors = pooled.detach().numpy() @ layer.weight.detach().numpy().T
    vectors = vectors + layer.bias.detach().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_two_steps_follow_the_rule_written_out():
    """Scores against the other side's bank, Z of the first batch, both sides, moved entries."""
    crd, batches = make(temperature=0.2, momentum=0.25)
    banks = {side: getattr(crd, f"{side}_bank").numpy().copy() for side in ("student", "teacher")}
    for bank in banks.values():
        assert np.abs(bank).max() <= 1 / math.sqrt(7 / 3)
        assert np.abs(bank).max() > 0.9 / math.sqrt(7 / 3)
    normalisers: dict[str, float] = {}
    for batch in batches:
        anchors = {
            "student": embedded(crd.embed_student, batch.student.pooled),
            "teacher": embedded(crd.embed_teacher, batch.teacher.pooled),
        }
        own = batch.target[:, None] == LABELS
        drawn = draw_without_replacement(own, 12, batch.draws.generator("CRD's negatives"))
        expected = 0.0
        for side, other in (("student", "teacher"), ("teacher", "student")):
            scores = np.exp(anchors[side] @ banks[other].T / 0.2)
            rows = []
            for row, place in enumerate(batch.indices.tolist()):
                chosen = np.flatnonzero(drawn[row].numpy())
                rows.append(np.concatenate([[scores[row, place]], scores[row, chosen]]))
            if side not in normalisers:
                normalisers[side] = np.mean(rows) * IMAGES
            p = np.array(rows) / normalisers[side]
            c = 12 / IMAGES
            expected -= (np.log(p[:, 0] / (p[:, 0] + c)) + np.log(c / (p[:, 1:] + c)).sum(1)).mean()
        assert crd(batch).item() == pytest.approx(expected, rel=1e-9)
        for side, bank in banks.items():
            moved = 0.25 * bank[batch.indices] + 0.75 * anchors[side]
            bank[batch.indices] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
            np.testing.assert_allclose(getattr(crd, f"{side}_bank").numpy(), bank, rtol=1e-12)
    fixed = [math.log(normalisers[side]) for side in ("student", "teacher")]
    torch.testing.assert_close(crd.log_normalisers, torch.tensor(fixed, dtype=torch.float64))


def test_the_gradient_is_that_of_fixed_banks_and_reaches_both_embeddings_and_the_student():
    crd, (batch, _) = make(temperature=0.3)
    banks = crd.student_bank.clone(), crd.teacher_bank.clone()
    crd(batch).backward()
    found = batch.student.pooled.grad.clone()
    assert all(parameter.grad.abs().sum() > 0 for parameter in crd.parameters())
    assert len(list(crd.parameters())) == 4

    # The student's side alone depends on its features: by central differences, Z held fixed.
    own = batch.target[:, None] == LABELS
    drawn = draw_without_replacement(own, 12, batch.draws.generator("CRD's negatives")).numpy()
    z = math.exp(crd.log_normalisers[0])

    def loss(pooled: Tensor) -> float:
        scores = np.exp(embedded(crd.embed_student, pooled) @ banks[1].numpy().T / 0.3) / z
        c, total = 12 / IMAGES, 0.0
        for row, place in enumerate(batch.indices.tolist()):
            p = scores[row, place]
            total -= math.log(p / (p + c)) + np.log(c / (scores[row][drawn[row]] + c)).sum()
        return total / len(pooled)

    step = 1e-6
    for place in [(0, 0), (1, 3), (3, 5)]:
        above, below = batch.student.pooled.detach().clone(), batch.student.pooled.detach().clone()
        above[place] += step
        below[place] -= step
        slope = (loss(above) - loss(below)) / (2 * step)
        assert found[place].item() == pytest.approx(slope, rel=1e-6)


def test_the_banks_and_normalisers_are_the_terms_state():
    crd, (first, second) = make()
    crd(first)
    state = {name: value.clone() for name, value in crd.state_dict().items()}
    buffers = {"student_bank", "teacher_bank", "log_normalisers"}
    assert set(state) == buffers | {f"embed_{s}.{p}" for s in TWO for p in ("weight", "bias")}
    expected = crd(second)
    again, _ = make()
    again.load_state_dict(state)
    assert torch.equal(again(second), expected)
    fresh, _ = make()
    assert not torch.equal(fresh(second), expected)


TWO = ("student", "teacher")


def test_each_step_draws_anew_and_the_same_again_when_repeated():
    own = own_class([0, 1, 2])
    draws = Draws(7)

    def drawn(epoch: int, step: int) -> Tensor:
        stream = draws.go_to(epoch, step).generator("CRD's negatives")
        return draw_without_replacement(own, 12, stream)

    assert torch.equal(drawn(1, 0), drawn(1, 0))
    assert not torch.equal(drawn(1, 0), drawn(1, 1))
    assert not torch.equal(drawn(1, 0), drawn(2, 0))
    other = Draws(8).generator("CRD's negatives")
    assert not torch.equal(drawn(1, 0), draw_without_replacement(own, 12, other))


def test_defaults_are_the_authors_and_bad_values_are_refused():
    chosen = CRD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (0.8, 1.0, 0)
    assert (chosen.negatives, chosen.width) == (16384, 128)
    assert (chosen.temperature, chosen.momentum) == (0.07, 0.5)
    assert CRD.needs == {"teacher_pooled"}
    for change in ({"negatives": 0}, {"temperature": 0}, {"momentum": 1}, {"momentum": -0.1}):
        with pytest.raises(ValueError, match=next(iter(change))):
            CRD.Settings(**change)


@pytest.mark.parametrize(
    "change", [{"negatives": 5}, {"width": 3}, {"temperature": 0.5}, {"momentum": 0.9}]
)
def test_every_option_changes_the_loss(change):
    def second_loss(**changes) -> float:
        crd, (first, second) = make(**changes)
        crd(first)
        return crd(second).item()

    assert second_loss(**change) != second_loss()


def test_embeddings_lie_on_the_unit_sphere_and_stay_there():
    crd, batches = make()
    for batch in batches:
        crd(batch)
        for bank in (crd.student_bank, crd.teacher_bank):
            rows = bank[batch.indices]
            torch.testing.assert_close(rows, F.normalize(rows, dim=1))
