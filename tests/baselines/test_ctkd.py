"""CTKD: KD's formula at a learnt temperature, its reversed gradient, and its curriculum."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.ctkd import CTKD, ctkd_loss, reversal_strength, reverse_gradient
from skd.losses.term import Term
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term


def reference(student: Tensor, teacher: Tensor, t: float) -> tuple[float, Tensor, float]:
    """T²·KL(p ‖ q)/B summed over samples, its derivative by the student's logits, and by T.

    With u = z/T: dKL/dT = -1/T·(Σ_c p_c·(log p_c - log q_c - KL)·u^t_c + Σ_c (q_c - p_c)·u^s_c).
    """
    count = len(student)
    value, by_temperature = 0.0, 0.0
    by_student = []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        log_q, log_p = log_softmax(s_row, t), log_softmax(t_row, t)
        p, q = [math.exp(x) for x in log_p], [math.exp(x) for x in log_q]
        gaps = [a - b for a, b in zip(log_p, log_q, strict=True)]
        kl = math.fsum(pc * gap for pc, gap in zip(p, gaps, strict=True))
        of_teacher = math.fsum(
            pc * (gap - kl) * z / t for pc, gap, z in zip(p, gaps, t_row, strict=True)
        )
        of_student = math.fsum((qc - pc) * z / t for pc, qc, z in zip(p, q, s_row, strict=True))
        value += t * t * kl / count
        by_temperature += (2 * t * kl - t * (of_teacher + of_student)) / count
        by_student.append([t / count * (qc - pc) for pc, qc in zip(p, q, strict=True)])
    return value, torch.tensor(by_student, dtype=torch.float64), by_temperature


def make(epoch: int = 10, theta: float = 1.0, **changed: float) -> tuple[Term, Tensor, Tensor]:
    """Return a term after its backward pass, with the logits of both sides."""
    student, teacher = make_outputs(1, 6), make_outputs(2, 6)
    term = make_term("ctkd", student, teacher, epoch=epoch, **changed)
    with torch.no_grad():
        term.theta.fill_(theta)
    term(make_batch(student, teacher, epoch=epoch)).backward()
    return term, student.logits, teacher.logits


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(2, 12),
    st.floats(0.5, 21),
    st.sampled_from([0.1, 3.0, 100.0]),
)
def test_value_and_gradients_follow_the_formula(seed, batch, classes, temperature, scale):
    student, teacher = draw(seed, (batch, classes), scale), draw(seed + 1, (batch, classes), scale)
    value, by_student, by_temperature = reference(student, teacher, temperature)
    student.requires_grad_()
    learnt = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    loss = ctkd_loss(student, teacher, learnt)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-11)
    torch.testing.assert_close(student.grad, by_student, rtol=1e-9, atol=1e-11)
    size = temperature * scale  # of the terms that cancel in it
    assert learnt.grad.item() == pytest.approx(by_temperature, rel=1e-8, abs=1e-11 * size)


def test_gradcheck():
    leaves = [draw(3, (3, 5)), draw(4, (3, 5)), torch.tensor(2.5, dtype=torch.float64)]
    assert torch.autograd.gradcheck(ctkd_loss, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_reversal_keeps_the_value_exactly_and_turns_the_gradient(strength):
    value = draw(5, (4,), 1e6).requires_grad_()
    turned = reverse_gradient(value, strength)
    assert torch.equal(turned, value)
    upstream = draw(6, (4,))
    (turned * upstream).sum().backward()
    torch.testing.assert_close(value.grad, -strength * upstream, rtol=0, atol=0)


def test_the_curriculum_rises_along_a_half_cosine_and_stays():
    strengths = [reversal_strength(epoch, 10) for epoch in (0, 1, 5, 9, 10, 11, 240)]
    sine = math.sin(math.pi / 20) ** 2
    assert strengths == pytest.approx([0, sine, 0.5, 1 - sine, 1, 1, 1], abs=1e-15)
    assert reversal_strength(1, 1) == 1.0


@pytest.mark.parametrize("theta", [-5.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("changed", [{}, {"temperature_min": 2.0, "temperature_range": 3.0}])
def test_the_temperature_is_bounded_by_a_sigmoid(changed, theta):
    term, *_ = make(theta=theta, **changed)
    low, width = ({"temperature_min": 1.0, "temperature_range": 20.0} | changed).values()
    expected = low + width / (1 + math.exp(-theta))
    assert term.temperature().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epoch", [1, 4, 10, 100])
@pytest.mark.parametrize("theta", [-2.0, 1.0])
def test_theta_ascends_the_loss_by_the_curriculums_strength(theta, epoch):
    term, student, teacher = make(epoch, theta)
    sigmoid = 1 / (1 + math.exp(-theta))
    _, by_student, by_temperature = reference(student, teacher, 1 + 20 * sigmoid)
    strength = math.sin(math.pi * min(epoch, 10) / 20) ** 2
    slope = by_temperature * 20 * sigmoid * (1 - sigmoid)
    assert term.theta.grad.item() == pytest.approx(-strength * slope, rel=1e-8)
    torch.testing.assert_close(student.grad, by_student, rtol=1e-9, atol=1e-12)  # not reversed
    assert teacher.grad.abs().max() > 0


def test_a_step_of_descent_on_theta_raises_the_loss():
    term, student, teacher = make(epoch=10, theta=-1.0)
    before = ctkd_loss(student, teacher, term.temperature()).item()
    with torch.no_grad():
        term.theta -= 1e-3 * term.theta.grad
    assert ctkd_loss(student, teacher, term.temperature()).item() > before


def test_the_temperature_is_the_only_parameter_and_starts_at_one():
    outputs = make_outputs(7, 4)
    terms = [make_term("ctkd", outputs, outputs) for _ in range(2)]
    for term in terms:
        assert [name for name, _ in term.named_parameters()] == ["theta"]
        assert term.temperature().item() == pytest.approx(15.62117, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = draw(8, (8, 20), 5.0).to(dtype), draw(9, (8, 20), 5.0).to(dtype)
    loss = ctkd_loss(student, teacher, torch.tensor(4.0))
    assert loss.dtype == torch.float32
    exact, *_ = reference(student.double(), teacher.double(), 4.0)
    assert loss.item() == pytest.approx(exact, rel=1e-5)


def test_settings_defaults_are_the_authors():
    chosen = CTKD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.curriculum_epochs) == (0.9, 0.1, 10)
    assert (chosen.temperature_min, chosen.temperature_range) == (1.0, 20.0)
    assert CTKD.needs == {"teacher_logits"}


@pytest.mark.parametrize(
    "bad", [{"temperature_min": 0}, {"temperature_range": -1}, {"curriculum_epochs": 0}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CTKD.Settings(**bad)


@pytest.mark.parametrize(
    "changed",
    [{"temperature_min": 2.0}, {"temperature_range": 5.0}, {"curriculum_epochs": 20}],
)
def test_each_setting_matters(changed):
    (plain, *_), (other, *_) = make(epoch=3), make(epoch=3, **changed)
    assert other.theta.grad.item() != pytest.approx(plain.theta.grad.item(), rel=1e-3)
