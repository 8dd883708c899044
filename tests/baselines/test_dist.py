"""DIST's loss against Huang et al.'s correlations, written out in loops, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.dist import DIST, dist_loss
from tests.builders.formulas import softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes

Rows = list[list[float]]


def correlation(x: list[float], y: list[float]) -> float:
    """Pearson's, with the authors' 1e-8 in the denominator."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    x, y = [a - mean_x for a in x], [b - mean_y for b in y]
    product = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return product / (math.hypot(*x) * math.hypot(*y) + 1e-8)


def one_minus_mean_correlation(x: Rows, y: Rows) -> float:
    return 1 - math.fsum(correlation(a, b) for a, b in zip(x, y, strict=True)) / len(x)


def reference(student: Tensor, teacher: Tensor, t: float, beta: float, gamma: float) -> float:
    q = [softmax(row, t) for row in student.tolist()]
    p = [softmax(row, t) for row in teacher.tolist()]
    q_columns, p_columns = ([list(x) for x in zip(*rows, strict=True)] for rows in (q, p))
    inter = one_minus_mean_correlation(q, p)
    intra = one_minus_mean_correlation(q_columns, p_columns)
    return t**2 * (beta * inter + gamma * intra)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (3, 10)])
def test_value_and_both_gradients_follow_the_formula(shape, weights, temperature):
    student, teacher = draw(0, shape, 2.0), draw(1, shape, 2.0)
    leaves = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = dist_loss(*leaves, temperature, *weights)
    loss.backward()
    assert loss.shape == ()
    value = reference(student, teacher, temperature, *weights)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    by_student = slopes(lambda x: reference(x, teacher, temperature, *weights), student)
    by_teacher = slopes(lambda x: reference(student, x, temperature, *weights), teacher)
    torch.testing.assert_close(leaves[0].grad, by_student, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(leaves[1].grad, by_teacher, rtol=1e-5, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(2, 12),
    st.floats(0.3, 30),
    st.sampled_from([0.1, 3.0, 100.0]),
)
def test_formula_holds_for_any_logits(seed, batch, classes, temperature, scale):
    student, teacher = draw(seed, (batch, classes), scale), draw(seed + 1, (batch, classes), scale)
    value = reference(student, teacher, temperature, 1.0, 1.0)
    loss = dist_loss(student, teacher, temperature)
    assert loss.item() == pytest.approx(value, rel=1e-7, abs=1e-9)


def test_gradcheck():
    student, teacher = draw(2, (4, 5)).requires_grad_(), draw(3, (4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: dist_loss(s, t, 2.5, 1.0, 0.5), (student, teacher))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 10))
def test_zero_at_equal_predictions_and_between_zero_and_four_t_squared(seed, temperature):
    student, teacher = draw(seed, (6, 8)), draw(seed + 1, (6, 8))
    shifts = draw(seed + 2, (6, 1), 10.0)  # of an image's logits: the same prediction
    same = dist_loss(student + shifts, student, temperature).item()
    assert same == pytest.approx(0, abs=1e-4 * temperature**2)  # except for the 1e-8
    assert same < dist_loss(student, teacher, temperature).item() < 4 * temperature**2


def test_inter_does_not_see_how_peaked_a_prediction_is_but_kd_would():
    # Correlation ignores scale and offset: of two classes, any two agreeing images match exactly.
    student, teacher = torch.tensor([[0.1, 0.0]]).double(), torch.tensor([[9.0, 0.0]]).double()
    assert dist_loss(student, teacher, 1.0, 1.0, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert dist_loss(student, -teacher, 1.0, 1.0, 0.0).item() == pytest.approx(2, abs=1e-6)


def test_a_batch_of_one_has_no_intra_part_but_a_constant():
    student, teacher = draw(4, (1, 6)).requires_grad_(), draw(5, (1, 6))
    loss = dist_loss(student, teacher, 4.0, beta=0.0)
    loss.backward()
    assert loss.item() == 16.0
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = draw(6, (8, 20), 5.0).to(dtype), draw(7, (8, 20), 5.0).to(dtype)
    loss = dist_loss(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        dist_loss(student.double(), teacher.double(), 4.0).item(), rel=1e-4
    )
    assert dist_loss(student.double(), teacher, 4.0).dtype == torch.float64


def test_term_defaults_are_the_authors():
    chosen = DIST.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.temperature) == (2.0, 1.0, 4.0)
    assert (chosen.beta, chosen.gamma) == (1.0, 1.0)
    assert DIST.needs == {"teacher_logits"}


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"beta": -1}, {"gamma": -1}, {"tau": 4}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DIST.Settings(**bad)


@pytest.mark.parametrize("changed", [{}, {"temperature": 1.5}, {"beta": 0.3}, {"gamma": 0.3}])
def test_term_is_the_loss_of_the_batch(changed):
    student, teacher = make_outputs(8, 6), make_outputs(9, 6)
    term = make_term("dist", student, teacher, **changed)
    loss = term(make_batch(student, teacher))
    loss.backward()
    t, beta, gamma = ({"temperature": 4.0, "beta": 1.0, "gamma": 1.0} | changed).values()
    value = reference(student.logits, teacher.logits, t, beta, gamma)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    assert student.logits.grad.abs().max() > 0
    assert teacher.logits.grad.abs().max() > 0
    assert not list(term.parameters())
