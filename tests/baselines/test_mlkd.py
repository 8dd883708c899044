"""MLKD's three levels against Jin et al.'s formulas, written out in loops, on one view."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.mlkd import MLKD, mlkd_loss
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes

TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)
Rows = list[list[float]]


def probabilities(logits: Tensor, temperature: float) -> Rows:
    return [[math.exp(x) for x in log_softmax(row, temperature)] for row in logits.tolist()]


def transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def distance_of_products(p: Rows, q: Rows) -> float:
    """‖ppᵀ - qqᵀ‖² over the number of rows."""
    total = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            of_teacher = math.fsum(a * b for a, b in zip(p[i], p[j], strict=True))
            of_student = math.fsum(a * b for a, b in zip(q[i], q[j], strict=True))
            total += (of_teacher - of_student) ** 2
    return total / len(p)


def share_up_to_median(values: list[float]) -> float:
    middle = statistics.median(values)
    return sum(value <= middle for value in values) / len(values)


def levels(student: Tensor, teacher: Tensor, t: float) -> tuple[float, float, float]:
    """The losses between instances, of the batch, and of the classes, before the masks."""
    instance = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(log_softmax(t_row, t), log_softmax(s_row, t), strict=True):
            instance += t * t * math.exp(a) * (a - b) / len(student)
    p, q = probabilities(teacher, t), probabilities(student, t)
    of_classes = distance_of_products(transposed(p), transposed(q))
    return instance, distance_of_products(p, q), of_classes


def reference(student: Tensor, teacher: Tensor, temperatures: tuple[float, ...]) -> float:
    confidence = probabilities(teacher, 1.0)
    of_images = share_up_to_median([max(row) for row in confidence])
    of_classes = share_up_to_median([math.fsum(column) for column in transposed(confidence)])
    total = 0.0
    for t in temperatures:
        instance, batch, classes = levels(student, teacher, t)
        total += of_images * (instance + batch) + of_classes * classes
    return total


@pytest.mark.parametrize("temperatures", [(1.0,), (4.0,), (2.0, 3.0), (2.0, 2.0)])
@pytest.mark.parametrize("shape", [(2, 3), (4, 6), (3, 5), (1, 4)])
def test_value_and_both_gradients_follow_the_formula(shape, temperatures):
    student, teacher = draw(0, shape, 2.0), draw(1, shape, 2.0)
    leaves = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = mlkd_loss(*leaves, temperatures)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(student, teacher, temperatures), rel=1e-10)
    by_student = slopes(lambda x: reference(x, teacher, temperatures), student)
    by_teacher = slopes(lambda x: reference(student, x, temperatures), teacher)
    torch.testing.assert_close(leaves[0].grad, by_student, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(leaves[1].grad, by_teacher, rtol=1e-5, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(2, 8),
    st.lists(st.floats(0.3, 20), min_size=1, max_size=3),
    st.sampled_from([0.1, 3.0, 20.0]),
)
def test_formula_holds_for_any_logits(seed, batch, classes, temperatures, scale):
    student, teacher = draw(seed, (batch, classes), scale), draw(seed + 1, (batch, classes), scale)
    value = reference(student, teacher, tuple(temperatures))
    loss = mlkd_loss(student, teacher, tuple(temperatures))
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_exact(dtype):
    student = torch.tensor([[100, -100, 0], [-100, 100, 90], [100, 100, 100]], dtype=dtype)
    teacher = torch.tensor([[-100, 80, 0], [100, -100, -100], [-100, 0, 100]], dtype=dtype)
    student.requires_grad_()
    loss = mlkd_loss(student, teacher, TEMPERATURES)
    loss.backward()
    value = reference(student.double(), teacher.double(), TEMPERATURES)
    assert loss.item() == pytest.approx(value, rel=1e-5 if dtype == torch.float32 else 1e-11)
    assert student.grad.isfinite().all()


def test_gradcheck():
    student, teacher = draw(2, (4, 5)).requires_grad_(), draw(3, (4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: mlkd_loss(s, t, (2.0, 4.0)), (student, teacher))


def test_masks_are_one_half_for_even_numbers_without_ties():
    student, teacher = draw(4, (6, 8)), draw(5, (6, 8))
    half = sum(sum(levels(student, teacher, t)) for t in TEMPERATURES) / 2
    assert mlkd_loss(student, teacher, TEMPERATURES).item() == pytest.approx(half, rel=1e-10)


def test_masks_keep_ties_at_the_median():
    # Five of six images are equally confident: all six are at or below the median, or five.
    student, teacher = draw(6, (6, 8)), draw(7, (1, 8)).repeat(6, 1)
    teacher[0] *= 3
    instance, batch, classes = levels(student, teacher, 4.0)
    expected = 5 / 6 * (instance + batch) + 1 / 2 * classes
    assert mlkd_loss(student, teacher, (4.0,)).item() == pytest.approx(expected, rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_zero_at_equal_logits_up_to_a_shift_and_positive_elsewhere(seed, shift):
    logits = draw(seed, (4, 6))
    student = (logits + shift).requires_grad_()
    loss = mlkd_loss(student, logits, TEMPERATURES)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.grad, torch.zeros_like(logits), rtol=0, atol=1e-10)
    assert mlkd_loss(draw(seed + 1, (4, 6)), logits, TEMPERATURES).item() > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(5)), st.permutations(range(4)))
def test_the_order_of_images_and_classes_does_not_matter(seed, classes, images):
    student, teacher = draw(seed, (4, 5)), draw(seed + 1, (4, 5))
    moved = [logits[list(images)][:, list(classes)] for logits in (student, teacher)]
    assert mlkd_loss(*moved, (2.0, 5.0)).item() == pytest.approx(
        mlkd_loss(student, teacher, (2.0, 5.0)).item(), rel=1e-10
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = draw(8, (6, 10), 5.0).to(dtype), draw(9, (6, 10), 5.0).to(dtype)
    loss = mlkd_loss(student, teacher, TEMPERATURES)
    assert loss.dtype == torch.float32
    value = reference(student.double(), teacher.double(), TEMPERATURES)
    assert loss.item() == pytest.approx(value, rel=1e-5)


def test_settings_defaults_are_the_authors_and_survive_storing():
    chosen = MLKD.Settings()
    assert (chosen.weight, chosen.cross_entropy) == (0.9, 0.1)
    assert chosen.temperatures == TEMPERATURES
    assert MLKD.needs == {"teacher_logits"}
    assert MLKD.Settings.restore(chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize("bad", [(), (0.0,), (2.0, -1.0)])
def test_bad_temperatures_are_refused(bad):
    with pytest.raises(ValueError, match="temperatures"):
        MLKD.Settings(temperatures=bad)


@pytest.mark.parametrize("changed", [{}, {"temperatures": [1.0, 2.5]}])
def test_term_is_the_loss_of_the_batch(changed):
    student, teacher = make_outputs(10, 6), make_outputs(11, 6)
    term = make_term("mlkd", student, teacher, **changed)
    loss = term(make_batch(student, teacher))
    loss.backward()
    expected = reference(student.logits, teacher.logits, changed.get("temperatures", TEMPERATURES))
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert student.logits.grad.abs().max() > 0
    assert teacher.logits.grad.abs().max() > 0
    assert not list(term.parameters())
