"""KD's loss against Hinton et al.'s formula, written out in loops, and its known limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.kd import KD, kd_loss
from skd.losses.term import Batch, TermContext
from skd.models.network import Outputs
from skd.randomness import Draws
from tests.builders.formulas import log_softmax
from tests.builders.losses import assert_loss_and_gradients, draw

SHAPES = ((1, 2), (3, 10), (16, 100), (4, 1))
TEMPERATURES = (0.5, 1.0, 4.0, 20.0)


def reference(student: Tensor, teacher: Tensor, t: float) -> tuple[float, Tensor, Tensor]:
    """T²·KL(p ‖ q)/B summed over samples, and its derivatives by the two sides' logits."""
    batch = len(student)
    value = 0.0
    by_student, by_teacher = [], []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        log_q, log_p = log_softmax(s_row, t), log_softmax(t_row, t)
        p, q = [math.exp(x) for x in log_p], [math.exp(x) for x in log_q]
        kl = math.fsum(pc * (a - b) for pc, a, b in zip(p, log_p, log_q, strict=True))
        value += t * t * kl / batch
        by_student.append([t / batch * (qc - pc) for pc, qc in zip(p, q, strict=True)])
        by_teacher.append(
            [t / batch * pc * (a - b - kl) for pc, a, b in zip(p, log_p, log_q, strict=True)]
        )
    double = torch.float64
    return value, torch.tensor(by_student, dtype=double), torch.tensor(by_teacher, dtype=double)


def check(student: Tensor, teacher: Tensor, t: float, rtol: float, atol: float) -> None:
    expected = reference(student, teacher, t)
    assert_loss_and_gradients(lambda s, z: kd_loss(s, z, t), student, teacher, expected, rtol, atol)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_both_gradients_follow_the_formula(shape, temperature):
    check(draw(0, shape, 3.0), draw(1, shape, 3.0), temperature, 1e-10, 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 12), st.floats(0.3, 30))
def test_formula_holds_for_any_logits(seed, batch, classes, temperature):
    student, teacher = (draw(s, (batch, classes), 3.0) for s in (seed, seed + 1))
    check(student, teacher, temperature, 1e-9, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits_stay_exact(temperature, dtype):
    student = torch.tensor([[100, -100, 0], [-100, 100, 100], [100, 100, 100]], dtype=dtype)
    teacher = torch.tensor([[-100, 100, 0], [100, -100, -100], [-100, 0, 100]], dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    check(student, teacher, temperature, tolerance, tolerance)


def test_gradcheck():
    student, teacher = draw(2, (3, 5), 3.0).requires_grad_(), draw(3, (3, 5), 3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: kd_loss(s, t, 2.5), (student, teacher))
    assert torch.autograd.gradgradcheck(lambda s, t: kd_loss(s, t, 2.5), (student, teacher))


def test_at_high_temperature_it_is_half_the_squared_distance_of_centred_logits_over_classes():
    # Hinton et al. 2015, section 2.1: T² makes the limit independent of T.
    student, teacher = draw(4, (6, 8), 3.0), draw(5, (6, 8), 3.0)
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = sum(x * x for row in gap.tolist() for x in row) / (2 * 8 * 6)
    for temperature in (1e4, 1e5):
        assert kd_loss(student, teacher, temperature).item() == pytest.approx(limit, rel=1e-3)


def test_reduction_is_the_mean_over_the_batch_and_the_sum_over_classes():
    student, teacher = draw(6, (5, 7), 3.0), draw(7, (5, 7), 3.0)
    rows = [kd_loss(student[i : i + 1], teacher[i : i + 1], 4.0).item() for i in range(5)]
    assert kd_loss(student, teacher, 4.0).item() == pytest.approx(sum(rows) / 5, rel=1e-12)
    # Two classes at p = (1, 0) in the limit and q uniform: KL is log 2, not (log 2)/2.
    certain = torch.tensor([[400.0, -400.0]], dtype=torch.float64)
    assert kd_loss(torch.zeros_like(certain), certain, 1.0).item() == pytest.approx(math.log(2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 30), st.floats(-50, 50))
def test_zero_at_equal_logits_up_to_a_shift_and_positive_elsewhere(seed, temperature, shift):
    logits = draw(seed, (3, 6), 3.0)
    student = (logits + shift).requires_grad_()
    loss = kd_loss(student, logits, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.grad, torch.zeros_like(logits), rtol=0, atol=1e-10)
    assert kd_loss(draw(seed + 1, (3, 6), 3.0), logits, temperature).item() > 0


def test_term_defaults_are_the_common_recipes():
    chosen = KD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.temperature) == (0.9, 0.1, 4.0)
    assert (chosen.warmup_epochs, chosen.teacher) == (0, "raw")
    assert KD.needs == {"teacher_logits"}
    for temperature in (0, -1):
        with pytest.raises(ValueError, match="temperature"):
            KD.Settings(temperature=temperature)


@pytest.mark.parametrize("temperature", [None, 1.5])
def test_term_is_the_loss_of_the_batch_at_its_temperature(temperature):
    student, teacher = draw(8, (4, 6), 3.0), draw(9, (4, 6), 3.0)
    outputs = [Outputs(x, (), (), x) for x in (student, teacher)]
    context = TermContext(6, torch.arange(6), 0, *outputs)
    changes = {} if temperature is None else {"temperature": temperature}
    term = KD(KD.Settings(**changes), context)
    index = torch.arange(4)
    value, _, _ = reference(student, teacher, temperature or 4.0)
    assert term(Batch(*outputs, index, index, 1, Draws(0))).item() == pytest.approx(
        value, rel=1e-12
    )
    assert not list(term.parameters())
