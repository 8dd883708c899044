"""NKD's loss against Yang et al.'s formula, written out in loops, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.nkd import NKD, nkd_loss
from skd.terms import UnfitError
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term


def reference(
    student: Tensor, teacher: Tensor, target: Tensor, gamma: float, t: float
) -> tuple[float, Tensor, Tensor]:
    """The loss, and its derivatives by the two sides' logits.

    By the student's: p_y·(q - onehot) and γT·(q̂ - p̂). By the teacher's: with g = -log q_y,
    g·p_y·(onehot - p), and γT·p̂_i·(H - log q̂_i) with H = Σ p̂·log q̂.
    """
    count, classes = student.shape
    value = 0.0
    by_student, by_teacher = torch.zeros_like(student), torch.zeros_like(teacher)
    for i, y in enumerate(target.tolist()):
        s_row, t_row = student[i].tolist(), teacher[i].tolist()
        log_q, p = log_softmax(s_row), [math.exp(x) for x in log_softmax(t_row)]
        value -= p[y] * log_q[y] / count
        for c in range(classes):
            by_student[i, c] += p[y] * (math.exp(log_q[c]) - (c == y)) / count
            by_teacher[i, c] -= log_q[y] * p[y] * ((c == y) - p[c]) / count
        others = [c for c in range(classes) if c != y]
        log_q = log_softmax([s_row[c] for c in others], t)
        p = [math.exp(x) for x in log_softmax([t_row[c] for c in others], t)]
        inner = math.fsum(a * b for a, b in zip(p, log_q, strict=True))
        value -= gamma * t * t * inner / count
        for c, pc, log_qc in zip(others, p, log_q, strict=True):
            by_student[i, c] += gamma * t * (math.exp(log_qc) - pc) / count
            by_teacher[i, c] += gamma * t * pc * (inner - log_qc) / count
    return value, by_student, by_teacher


def labels(seed: int, count: int, classes: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def check(
    student: Tensor, teacher: Tensor, target: Tensor, gamma: float, t: float, tolerance: float
) -> None:
    value, by_student, by_teacher = reference(student.double(), teacher.double(), target, gamma, t)
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = nkd_loss(student, teacher, target, gamma, t)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    size = max(1.0, by_teacher.abs().max().item())
    torch.testing.assert_close(
        student.grad.double(), by_student, rtol=tolerance, atol=10 * tolerance
    )
    torch.testing.assert_close(
        teacher.grad.double(), by_teacher, rtol=tolerance, atol=10 * tolerance * size
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 3.5])
@pytest.mark.parametrize("shape", [(1, 2), (3, 10), (16, 100)])
def test_value_and_both_gradients_follow_the_formula(shape, gamma, temperature):
    check(draw(0, shape, 3.0), draw(1, shape, 3.0), labels(0, *shape), gamma, temperature, 1e-11)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(2, 12),
    st.floats(0, 10),
    st.floats(0.3, 30),
    st.sampled_from([0.1, 3.0, 100.0]),
)
def test_formula_holds_for_any_logits(seed, batch, classes, gamma, temperature, scale):
    shape = (batch, classes)
    student, teacher = draw(seed, shape, scale), draw(seed + 1, shape, scale)
    check(student, teacher, labels(seed, *shape), gamma, temperature, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_extreme_logits_stay_exact(temperature, dtype):
    student = torch.tensor([[100, -100, 0], [-100, 100, 100], [100, 100, 100]], dtype=dtype)
    teacher = torch.tensor([[-100, 100, 0], [100, -100, -100], [-100, 0, 100]], dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    check(student, teacher, torch.tensor([0, 1, 2]), 3.5, temperature, tolerance)


def test_gradcheck():
    student, teacher = draw(2, (3, 5)).requires_grad_(), draw(3, (3, 5)).requires_grad_()
    target = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(
        lambda s, t: nkd_loss(s, t, target, 3.5, 2.5), (student, teacher)
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_non_target_part_ignores_the_targets_own_logits(seed, shift):
    student, teacher, target = draw(seed, (4, 6)), draw(seed + 1, (4, 6)), labels(seed, 4, 6)

    def part(s: Tensor, t: Tensor) -> float:
        without = nkd_loss(s, t, target, 0.0, 3.0)
        return (nkd_loss(s, t, target, 3.5, 3.0) - without).item()

    hot = torch.nn.functional.one_hot(target, 6)
    moved = part(student + shift * hot, teacher - shift * hot)
    assert moved == pytest.approx(part(student, teacher), rel=1e-9)


def test_a_sure_teacher_gives_the_cross_entropy_in_the_target_part():
    student, target = draw(4, (5, 7)), labels(4, 5, 7)
    sure = 500.0 * torch.nn.functional.one_hot(target, 7).double()
    loss = nkd_loss(student, sure, target, 0.0, 3.0).item()
    log_q = [log_softmax(row)[y] for row, y in zip(student.tolist(), target.tolist(), strict=True)]
    assert loss == pytest.approx(-sum(log_q) / 5, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 10))
def test_least_non_target_part_is_the_teachers_entropy(seed, temperature):
    # It is a cross-entropy, not a divergence: at equal logits only the gradient is 0.
    teacher, target = draw(seed, (4, 6)), labels(seed, 4, 6)
    student = teacher.clone().requires_grad_()
    without = nkd_loss(student, teacher, target, 0.0, temperature)
    part = nkd_loss(student, teacher, target, 1.0, temperature) - without
    (gradient,) = torch.autograd.grad(part, student)
    torch.testing.assert_close(gradient, torch.zeros_like(teacher), rtol=0, atol=1e-12)
    assert 0 < part.item() <= temperature**2 * math.log(5) + 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = draw(5, (8, 20), 5.0).to(dtype), draw(6, (8, 20), 5.0).to(dtype)
    target = labels(5, 8, 20)
    loss = nkd_loss(student, teacher, target, 3.5, 3.0)
    assert loss.dtype == torch.float32
    value, *_ = reference(student.double(), teacher.double(), target, 3.5, 3.0)
    assert loss.item() == pytest.approx(value, rel=1e-5)


def test_settings_defaults_are_the_authors():
    chosen = NKD.Settings()
    assert (chosen.weight, chosen.cross_entropy) == (1.0, 1.0)
    assert (chosen.gamma, chosen.temperature) == (3.5, 3.0)
    assert NKD.needs == {"teacher_logits"}


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"gamma": -1}, {"temp": 3}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        NKD.Settings(**bad)


def test_one_class_is_refused():
    one = make_outputs(7, 3, classes=1)
    with pytest.raises(UnfitError, match="two classes"):
        make_term("nkd", one, one)
    with pytest.raises(ValueError, match="two classes"):
        nkd_loss(one.logits, one.logits, torch.zeros(3, dtype=torch.long), 1.0, 1.0)


@pytest.mark.parametrize("changed", [{}, {"gamma": 1.0}, {"temperature": 1.5}])
def test_term_is_the_loss_of_the_batch(changed):
    student, teacher = make_outputs(8, 6), make_outputs(9, 6)
    term, batch = make_term("nkd", student, teacher, **changed), make_batch(student, teacher)
    loss = term(batch)
    loss.backward()
    gamma, t = ({"gamma": 3.5, "temperature": 3.0} | changed).values()
    value, by_student, _ = reference(student.logits, teacher.logits, batch.target, gamma, t)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(student.logits.grad, by_student, rtol=1e-9, atol=1e-12)
    assert not list(term.parameters())
