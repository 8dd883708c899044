"""WTTM's loss against Zheng & Yang's formula, written out in loops, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.wttm import WTTM, wttm_loss
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes


def reference(student: Tensor, teacher: Tensor, gamma: float) -> tuple[float, Tensor]:
    """U·KL(p^γ/U ‖ q), mean over the batch, and its derivative by the student's logits."""
    count = len(student)
    value, by_student = 0.0, []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        log_q, log_p = log_softmax(s_row), log_softmax(t_row)
        powers = [math.exp(gamma * x) for x in log_p]
        power_sum = math.fsum(powers)
        log_r = [gamma * x - math.log(power_sum) for x in log_p]
        r = [power / power_sum for power in powers]
        kl = math.fsum(rc * (a - b) for rc, a, b in zip(r, log_r, log_q, strict=True))
        value += power_sum * kl / count
        by_student.append(
            [power_sum * (math.exp(b) - rc) / count for rc, b in zip(r, log_q, strict=True)]
        )
    return value, torch.tensor(by_student, dtype=torch.float64)


def check(student: Tensor, teacher: Tensor, gamma: float, tolerance: float) -> None:
    value, by_student = reference(student.double(), teacher.double(), gamma)
    student = student.clone().requires_grad_()
    loss = wttm_loss(student, teacher, gamma)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    size = max(1.0, by_student.abs().max().item())
    torch.testing.assert_close(
        student.grad.double(), by_student, rtol=tolerance, atol=10 * tolerance * size
    )


@pytest.mark.parametrize("gamma", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(1, 2), (3, 10), (16, 100), (4, 1)])
def test_value_and_the_students_gradient_follow_the_formula(shape, gamma):
    check(draw(0, shape, 3.0), draw(1, shape, 3.0), gamma, 1e-11)


def test_the_teachers_gradient_follows_the_formula():
    student, teacher = draw(2, (3, 4), 2.0), draw(3, (3, 4), 2.0).requires_grad_()
    wttm_loss(student, teacher, 0.3).backward()
    expected = slopes(lambda x: reference(student, x, 0.3)[0], teacher.detach())
    torch.testing.assert_close(teacher.grad, expected, rtol=1e-6, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(2, 12),
    st.floats(0.02, 1),
    st.sampled_from([0.1, 3.0, 100.0]),
)
def test_formula_holds_for_any_logits(seed, batch, classes, gamma, scale):
    shape = (batch, classes)
    check(draw(seed, shape, scale), draw(seed + 1, shape, scale), gamma, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.1, 0.8])
def test_extreme_logits_stay_exact(gamma, dtype):
    student = torch.tensor([[100, -100, 0], [-100, 100, 100], [100, 100, 100]], dtype=dtype)
    teacher = torch.tensor([[-100, 100, 0], [100, -100, -100], [-100, 0, 100]], dtype=dtype)
    check(student, teacher, gamma, 1e-5 if dtype == torch.float32 else 1e-11)


def test_gradcheck():
    student, teacher = draw(4, (3, 5)).requires_grad_(), draw(5, (3, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: wttm_loss(s, t, 0.3), (student, teacher))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.floats(-50, 50))
def test_zero_where_the_student_is_the_transformed_teacher(seed, gamma, shift):
    # The power transform is temperature scaling, of the teacher alone: T = 1/γ.
    teacher = draw(seed, (4, 6), 3.0)
    assert wttm_loss(gamma * teacher + shift, teacher, gamma).item() == pytest.approx(0, abs=1e-9)
    assert wttm_loss(draw(seed + 1, (4, 6), 3.0), teacher, gamma).item() > 0


def test_the_weight_runs_from_one_for_a_sure_teacher_to_a_power_of_c_for_an_unsure_one():
    student, gamma = draw(6, (1, 8)), 0.2
    log_q = log_softmax(student[0].tolist())
    sure = torch.zeros(1, 8).double()
    sure[0, 3] = 5000.0
    assert wttm_loss(student, sure, gamma).item() == pytest.approx(-log_q[3], rel=1e-12)
    kl = -sum(log_q) / 8 - math.log(8)
    unsure = wttm_loss(student, torch.zeros(1, 8).double(), gamma).item()
    assert unsure == pytest.approx(8 ** (1 - gamma) * kl, rel=1e-12)


def test_at_exponent_one_it_is_kd_at_temperature_one():
    student, teacher = draw(7, (5, 6), 3.0), draw(8, (5, 6), 3.0)
    kl = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(log_softmax(t_row), log_softmax(s_row), strict=True):
            kl += math.exp(a) * (a - b) / 5
    assert wttm_loss(student, teacher, 1.0).item() == pytest.approx(kl, rel=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = draw(9, (8, 20), 5.0).to(dtype), draw(10, (8, 20), 5.0).to(dtype)
    loss = wttm_loss(student, teacher, 0.1)
    assert loss.dtype == torch.float32
    value, _ = reference(student.double(), teacher.double(), 0.1)
    assert loss.item() == pytest.approx(value, rel=1e-5)


def test_settings_defaults_are_the_authors():
    chosen = WTTM.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.exponent) == (3.0, 1.0, 0.1)
    assert WTTM.needs == {"teacher_logits"}


@pytest.mark.parametrize("exponent", [0.0, -0.1, 1.1])
def test_bad_exponents_are_refused(exponent):
    with pytest.raises(ValueError, match="exponent"):
        WTTM.Settings(exponent=exponent)


@pytest.mark.parametrize("exponent", [None, 0.4])
def test_term_is_the_loss_of_the_batch(exponent):
    student, teacher = make_outputs(11, 6), make_outputs(12, 6)
    changed = {} if exponent is None else {"exponent": exponent}
    term = make_term("wttm", student, teacher, **changed)
    loss = term(make_batch(student, teacher))
    loss.backward()
    value, by_student = reference(student.logits, teacher.logits, exponent or 0.1)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(student.logits.grad, by_student, rtol=1e-9, atol=1e-12)
    assert teacher.logits.grad.abs().max() > 0
    assert not list(term.parameters())
