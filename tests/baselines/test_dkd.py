"""DKD's loss against the paper's definition in decimal arithmetic, and its known limits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.dkd import DKD, dkd_loss
from baselines.kd import kd_loss
from skd.terms import TermContext, UnfitError
from tests.builders.losses import (
    assert_loss_and_gradients,
    draw,
    make_batch,
    make_outputs,
    make_term,
)

Row = list[Decimal]
STEP = Decimal("1e-15")  # of central differences; with 50 digits they are exact to about 1e-30


def kl(p: Row, q: Row) -> Decimal:
    return sum(a * (a / b).ln() for a, b in zip(p, q, strict=True))


def parts(student: Row, teacher: Row, target: int, t: Decimal) -> tuple[Decimal, Decimal]:
    """TCKD and NCKD of one sample, from probabilities as in the paper's section 3.1."""

    def split(row: Row) -> tuple[Row, Row]:
        others = [(z / t).exp() for place, z in enumerate(row) if place != target]
        own = (row[target] / t).exp()
        total = own + sum(others)
        return [own / total, sum(others) / total], [e / sum(others) for e in others]

    (b_student, h_student), (b_teacher, h_teacher) = split(student), split(teacher)
    return kl(b_teacher, b_student), kl(h_teacher, h_student)


def reference(student, teacher, target, alpha, beta, temperature):
    """The loss, and its derivatives by the two sides' logits."""
    with localcontext() as context:
        context.prec = 50
        t, a, b = (Decimal(x) for x in (temperature, alpha, beta))
        sides = [
            [[Decimal(z) for z in row] for row in side.tolist()] for side in (student, teacher)
        ]

        def loss(row: int) -> Decimal:
            tckd, nckd = parts(sides[0][row], sides[1][row], int(target[row]), t)
            return t * t * (a * tckd + b * nckd) / len(target)

        def slope(row: int, logits: Row, place: int) -> float:
            logits[place] += STEP
            above = loss(row)
            logits[place] -= 2 * STEP
            below = loss(row)
            logits[place] += STEP
            return float((above - below) / (2 * STEP))

        value = float(sum(loss(row) for row in range(len(target))))
        slopes = [
            [[slope(n, row, c) for c in range(len(row))] for n, row in enumerate(side)]
            for side in sides
        ]
    return value, *(torch.tensor(side, dtype=torch.float64) for side in slopes)


def check(student, teacher, target, alpha, beta, temperature, rtol, atol, autocast=False):
    expected = reference(student, teacher, target, alpha, beta, temperature)

    def loss_of(s: Tensor, z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return dkd_loss(s, z, target, alpha, beta, temperature)

    assert_loss_and_gradients(loss_of, student, teacher, expected, rtol, atol)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (2, 10)])
def test_value_and_both_gradients_follow_the_definition(shape, temperature):
    target = torch.arange(shape[0]) % shape[1]
    check(draw(0, shape, 3), draw(1, shape, 3), target, 1.5, 6.0, temperature, 1e-11, 1e-12)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(2, 5),
    st.floats(0.5, 20),
    st.sampled_from([1, 10, 100]),
)
def test_definition_holds_for_any_logits(seed, batch, classes, temperature, scale):
    student, teacher = (draw(s, (batch, classes), scale) for s in (seed, seed + 1))
    target = torch.arange(seed, seed + batch) % classes
    check(student, teacher, target, 1.0, 8.0, temperature, 1e-10, 1e-10)


EXTREME_STUDENT = [[100, -100, 0], [-100, 100, 100], [100, 100, 100], [100, -100, -100]]
EXTREME_TEACHER = [[-100, 100, 0], [100, -100, -100], [-100, 0, 100], [100, -100, -50]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shift", [0, 1, 2])  # the target: the highest, a middle, the lowest logit
@pytest.mark.parametrize("case", ["float64", "float32", "autocast", "bfloat16", "float16"])
def test_extreme_logits_stay_exact(case, shift, temperature):
    dtype = getattr(torch, case if case != "autocast" else "bfloat16")
    student, teacher = (torch.tensor(x, dtype=dtype) for x in (EXTREME_STUDENT, EXTREME_TEACHER))
    # Below float32's precision gradients are rounded to the logits' type.
    tolerance = {"float64": 1e-13, "float32": 1e-5, "float16": 1e-3}.get(case, 8e-3)
    target = torch.full((4,), shift)
    check(student, teacher, target, 1.0, 8.0, temperature, tolerance, tolerance, case == "autocast")


def test_half_precision_logits_are_raised_before_anything_else():
    student, teacher = draw(2, (4, 6), 5).bfloat16(), draw(3, (4, 6), 5).bfloat16()
    target = torch.arange(4)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = dkd_loss(student, teacher, target, 1.0, 8.0, 3.0)
        exact = dkd_loss(student.double(), teacher.double(), target, 1.0, 8.0, 3.0)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_a_certain_sides_small_gradient_is_not_rounded_away():
    # 1 - p(target) is about 1e-13 on both sides, below float32's resolution at 1.
    student = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[31.0, 0.0, 0.0]])
    dkd_loss(student, teacher, torch.tensor([0]), 1.0, 0.0, 1.0).backward()
    _, by_student, _ = reference(student, teacher, [0], 1.0, 0.0, 1.0)
    torch.testing.assert_close(student.grad.double(), by_student, rtol=1e-4, atol=0)


def test_gradcheck():
    student, teacher = draw(4, (3, 5)).requires_grad_(), draw(5, (3, 5)).requires_grad_()
    target = torch.tensor([4, 0, 2])

    def loss(s: Tensor, t: Tensor) -> Tensor:
        return dkd_loss(s, t, target, 1.5, 6.0, 2.5)

    assert torch.autograd.gradcheck(loss, (student, teacher))
    assert torch.autograd.gradgradcheck(loss, (student, teacher))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20), st.integers(2, 12))
def test_with_the_teachers_doubt_as_beta_it_is_kd(seed, temperature, classes):
    # Section 3.1: KD = TCKD + (1 - p_target)·NCKD, sample by sample.
    student, teacher = (draw(s, (1, classes), 3) for s in (seed, seed + 1))
    target = torch.tensor([seed % classes])
    doubt = 1 - (teacher / temperature).softmax(1)[0, target].item()
    assert dkd_loss(student, teacher, target, 1.0, doubt, temperature).item() == pytest.approx(
        kd_loss(student, teacher, temperature).item(), rel=1e-9, abs=1e-12
    )


def test_of_two_classes_only_the_targets_part_is_left():
    student, teacher = draw(6, (4, 2)).requires_grad_(), draw(7, (4, 2)).requires_grad_()
    target = torch.tensor([0, 1, 1, 0])
    nckd = dkd_loss(student, teacher, target, 0.0, 8.0, 4.0)
    nckd.backward()
    assert nckd.item() == 0
    assert not student.grad.any()
    assert not teacher.grad.any()
    torch.testing.assert_close(
        dkd_loss(student, teacher, target, 1.0, 8.0, 4.0), kd_loss(student, teacher, 4.0)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20), st.floats(-50, 50))
def test_zero_at_equal_logits_up_to_a_shift_and_positive_elsewhere(seed, temperature, shift):
    logits, target = draw(seed, (3, 6)), torch.tensor([0, 5, 2])
    student = (logits + shift).requires_grad_()
    loss = dkd_loss(student, logits, target, 1.0, 8.0, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.grad, torch.zeros_like(logits), rtol=0, atol=1e-10)
    assert dkd_loss(draw(seed + 1, (3, 6)), logits, target, 1.0, 8.0, temperature).item() > 0


def test_reduction_is_the_mean_over_the_batch():
    student, teacher, target = draw(8, (5, 7)), draw(9, (5, 7)), torch.tensor([6, 0, 3, 3, 1])
    rows = [
        dkd_loss(student[i : i + 1], teacher[i : i + 1], target[i : i + 1], 1.0, 8.0, 4.0).item()
        for i in range(5)
    ]
    whole = dkd_loss(student, teacher, target, 1.0, 8.0, 4.0).item()
    assert whole == pytest.approx(sum(rows) / 5, rel=1e-12)


def test_term_defaults_are_mdistillers():
    chosen = DKD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (1.0, 1.0, 20)
    assert (chosen.alpha, chosen.beta, chosen.temperature) == (1.0, 8.0, 4.0)
    assert DKD.needs == {"teacher_logits"}
    for bad in ({"temperature": 0}, {"alpha": -1}, {"beta": -1}, {"warmup_epochs": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            DKD.Settings(**bad)


def test_weight_rises_over_the_warmup():
    outputs = make_outputs(0, 4)
    term = make_term("dkd", outputs, outputs)
    weights = [term.weight(epoch) for epoch in (1, 10, 20, 21, 240)]
    assert weights == pytest.approx([1 / 20, 1 / 2, 1, 1, 1])


@pytest.mark.parametrize("changes", [{}, {"alpha": 0.5}, {"beta": 2.0}, {"temperature": 1.5}])
def test_term_is_the_loss_of_the_batch_with_its_settings(changes):
    student, teacher = make_outputs(1, 3), make_outputs(2, 3)
    term = make_term("dkd", student, teacher, **changes)
    target = torch.tensor([4, 1, 1])
    chosen = {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, **changes}
    value, _, _ = reference(student.logits, teacher.logits, target, **chosen)
    assert term(make_batch(student, teacher, target)).item() == pytest.approx(value, rel=1e-11)
    assert not list(term.parameters())


def test_one_class_is_refused():
    one = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="two classes or more, got 1"):
        dkd_loss(one, one, torch.zeros(2, dtype=torch.long), 1.0, 8.0, 4.0)
    outputs = make_outputs(0, 2, classes=1)
    with pytest.raises(UnfitError, match="two classes or more, got 1"):
        DKD(DKD.Settings(), TermContext(1, torch.zeros(5), 0, outputs, outputs))
