"""CRD: the loss against loops, the sampling law by its frequencies, the banks step by step."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines._contrast import Drawn, contrast_loss
from baselines._negatives import (
    draw_without_replacement,
)
from baselines.crd import CRD
from skd.losses.term import Alone, Batch
from skd.models.network import Outputs
from skd.randomness import Draws
from tests.builders.crd import CLASSES, IMAGES, LABELS, WIDTH, own_class
from tests.builders.losses import draw, make_batch, make_outputs, make_term

# The loss.


def reference(positive: Tensor, scores: Tensor, drawn: Tensor, noise: float) -> list[float]:
    """The NCE objective of the reference page, from probabilities, in loops."""
    losses = []
    for row, own in enumerate(positive.tolist()):
        p = math.exp(own)
        loss = -math.log(p / (p + noise))
        for image, score in enumerate(scores[row].tolist()):
            q = math.exp(score)
            loss -= drawn[row, image].item() * math.log(noise / (q + noise))
        losses.append(loss)
    return losses


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 9), st.floats(0.01, 20))
def test_the_loss_and_its_derivatives_follow_the_formula(seed, batch, images, noise):
    positive, scores = draw(seed, (batch,), 4), draw(seed + 1, (batch, images), 4)
    counts = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (batch, images)))
    for times in (None, counts):
        drawn = torch.ones_like(counts) if times is None else times
        ratios = positive - math.log(noise), scores - math.log(noise)
        losses, by_positive, by_scores = contrast_loss(*ratios, times)
        np.testing.assert_allclose(losses, reference(positive, scores, drawn, noise), rtol=1e-9)
        x, y = positive.clone().requires_grad_(), scores.clone().requires_grad_()
        p, q = x.exp(), y.exp()
        kept = (p / (p + noise)).log() + (drawn * (noise / (q + noise)).log()).sum(dim=1)
        (-kept.sum()).backward()
        torch.testing.assert_close(by_positive, x.grad)
        torch.testing.assert_close(by_scores, y.grad)


def test_the_loss_is_finite_for_extreme_scores():
    for value in (100.0, -100.0):
        scores = torch.full((2, 3), value)
        losses, by_positive, by_scores = contrast_loss(-scores[:, 0], scores)
        steep = max(value, 0)  # log(1 + exp(x)) is x or 0
        torch.testing.assert_close(losses, torch.full((2,), 4.0 * steep))
        torch.testing.assert_close(by_positive, torch.full((2,), -steep / 100))
        torch.testing.assert_close(by_scores, torch.full((2, 3), steep / 100))


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
        batch.draws.set_step(1, step)
    return crd, batches


def step(crd: CRD, batch: Batch) -> Tensor:
    """Return the loss of a step, which moves the banks."""
    loss = crd(batch)
    crd.after_step(Alone())
    return loss


def again(batch: Batch) -> Batch:
    """Return the batch at the start of its step's draws."""
    batch.draws.set_step(batch.draws.epoch, batch.draws.step)
    return batch


def drawn_in(crd: CRD, batch: Batch) -> Tensor:
    """Return the indices that the term draws in a step, (B, N)."""
    own = batch.target[:, None] == LABELS
    stream = again(batch).draws.generator("CRD's negatives")
    return crd.draw(own, crd.settings.negatives, stream)


def embedded(layer: torch.nn.Linear, pooled: Tensor) -> np.ndarray:
    vectors = pooled.detach().numpy() @ layer.weight.detach().numpy().T
    vectors = vectors + layer.bias.detach().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("device", ["cpu", "another"])
def test_two_steps_follow_the_rule_written_out(device, monkeypatch):
    """Check the scores, Z of the first batch and the moved entries of both sides."""
    if device == "another":  # takes the path of a GPU
        monkeypatch.setattr(Tensor, "is_cpu", False)
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
        drawn = drawn_in(crd, batch)
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
        assert step(crd, again(batch)).item() == pytest.approx(expected, rel=1e-9)
        for side, bank in banks.items():
            moved = 0.25 * bank[batch.indices] + 0.75 * anchors[side]
            bank[batch.indices] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
            np.testing.assert_allclose(getattr(crd, f"{side}_bank").numpy(), bank, rtol=1e-12)
    fixed = [math.log(normalisers[side]) for side in ("student", "teacher")]
    torch.testing.assert_close(crd.log_normalisers, torch.tensor(fixed, dtype=torch.float64))


def plain_loss(crd: CRD, batch: Batch, drawn: Tensor) -> Tensor:
    """The term's value by autograd, from probabilities; before the term has moved its banks."""
    rows, count = torch.arange(len(batch.indices)), crd.settings.negatives
    noise, total = count / IMAGES, 0.0
    sides = (
        (crd.embed_student(batch.student.pooled), crd.teacher_bank.clone()),
        (crd.embed_teacher(batch.teacher.pooled), crd.student_bank.clone()),
    )
    for vectors, bank in sides:
        anchors = vectors / vectors.norm(dim=1, keepdim=True)
        scores = (anchors @ bank.T / crd.settings.temperature).exp()
        positive = scores[rows, batch.indices]
        seen = (positive.sum() + (drawn * scores).sum()).detach()
        z = seen / (len(rows) * (count + 1)) * IMAGES
        p, q = positive / z, scores / z
        negative = (drawn * (noise / (q + noise)).log()).sum(dim=1)
        total = total - ((p / (p + noise)).log() + negative).mean()
    return total


def gradients(crd: CRD, batch: Batch, loss: Tensor) -> list[Tensor]:
    """Compare gradients by the parameters and by both sides' features."""
    inputs = [*crd.parameters(), batch.student.pooled, batch.teacher.pooled]
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("device", ["cpu", "another"])
@pytest.mark.parametrize("negatives", [12, 50])
def test_value_and_gradients_are_those_of_the_formula_with_banks_and_z_held_fixed(
    device, negatives, monkeypatch
):
    if device == "another":  # takes the path of a GPU
        monkeypatch.setattr(Tensor, "is_cpu", False)
    crd, (batch, _) = make(temperature=0.3, negatives=negatives)
    drawn = drawn_in(crd, batch)
    expected = plain_loss(crd, batch, drawn)
    by_formula = gradients(crd, batch, expected)
    loss = crd(again(batch))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    ours = gradients(crd, batch, 3 * loss)
    assert len(ours) == 6
    for one, other in zip(ours, by_formula, strict=True):
        assert other.abs().sum() > 0
        torch.testing.assert_close(one, 3 * other, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_the_loss_by_differences():
    crd, (first, batch) = make(temperature=0.3)
    step(crd, first)  # fixes Z
    negatives = Drawn.from_counts(drawn_in(crd, batch))
    bank = crd.teacher_bank.clone()
    anchors = draw(5, (4, 7), 0.4).requires_grad_()

    def loss(anchors: Tensor) -> Tensor:
        return crd._contrast(0, anchors, bank, batch, negatives)

    assert torch.autograd.gradcheck(loss, anchors)
    slopes = torch.autograd.grad(loss(anchors).square(), anchors, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):  # not silently 0
        slopes.sum().backward()


def test_float32_agrees_with_float64_and_autocast_changes_nothing():
    values, slopes = {}, {}
    for case in ("float64", "float32", "autocast"):
        crd, (batch, _) = make(width=WIDTH)
        crd.embed_student = crd.embed_teacher = torch.nn.Identity()
        crd.to(torch.float64 if case == "float64" else torch.float32)
        for side in (batch.student, batch.teacher):
            side.pooled.data = side.pooled.data.to(crd.student_bank.dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
            values[case] = crd(again(batch))
        values[case].backward()
        slopes[case] = batch.student.pooled.grad
    assert values["float32"].dtype == torch.float32
    assert torch.equal(values["autocast"], values["float32"])
    assert torch.equal(slopes["autocast"], slopes["float32"])
    for by_precision in (values, slopes):
        torch.testing.assert_close(
            by_precision["float32"].double(), by_precision["float64"], rtol=1e-5, atol=1e-5
        )


def test_a_step_repeats_bit_for_bit():
    repeats = []
    for _ in range(2):
        crd, batches = make()
        losses = [step(crd, again(batch)) for batch in batches]
        slopes = gradients(crd, batches[1], losses[1])
        repeats.append([*losses, *slopes, *crd.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*repeats, strict=True))


@pytest.mark.parametrize("negatives", [12, 50])
def test_away_from_the_cpu_a_step_asks_the_device_for_nothing(negatives, monkeypatch):
    """Run on meta tensors, which have no values: shapes and branches cannot depend on values."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has no autocast
    crd, (batch, _) = make(negatives=negatives)
    crd.to("meta")
    student, teacher = (
        Outputs(side.logits, (), (), side.pooled.detach().to("meta").requires_grad_())
        for side in (batch.student, batch.teacher)
    )
    target, indices = batch.target.to("meta"), batch.indices.to("meta")
    loss = crd(make_batch(student, teacher, target, indices=indices))
    loss.backward()
    crd.after_step(Alone())
    assert (loss.device.type, loss.shape) == ("meta", ())
    assert student.pooled.grad.shape == student.pooled.shape


def test_the_banks_and_normalisers_are_the_terms_state():
    crd, (first, second) = make()
    step(crd, first)
    state = {name: value.clone() for name, value in crd.state_dict().items()}
    buffers = {"student_bank", "teacher_bank", "log_normalisers"}
    assert set(state) == buffers | {f"embed_{s}.{p}" for s in TWO for p in ("weight", "bias")}
    expected = crd(again(second))
    resumed, _ = make()
    resumed.load_state_dict(state)
    assert torch.equal(resumed(again(second)), expected)
    fresh, _ = make()
    assert not torch.equal(fresh(again(second)), expected)


TWO = ("student", "teacher")


def test_each_step_draws_again_and_the_same_again_when_repeated():
    own = own_class([0, 1, 2])
    draws = Draws(7)

    def drawn(epoch: int, step: int) -> Tensor:
        stream = draws.set_step(epoch, step).generator("CRD's negatives")
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
        step(crd, first)
        return crd(second).item()

    assert second_loss(**change) != second_loss()


def test_embeddings_lie_on_the_unit_sphere_and_stay_there():
    crd, batches = make()
    for batch in batches:
        step(crd, batch)
        for bank in (crd.student_bank, crd.teacher_bank):
            rows = bank[batch.indices]
            torch.testing.assert_close(rows, F.normalize(rows, dim=1))
