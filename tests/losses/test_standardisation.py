"""Logit standardisation against the formula of z-scores, its properties, its use in a method."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skd.losses.methods import resolve_method
from skd.losses.objective import Objective
from skd.losses.standardisation import standardise_logits
from skd.losses.term import TermContext
from skd.study.sheet import SheetMethod
from tests.builders.losses import draw, make_batch, make_outputs


def reference(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(z - mean)/(σ + 1e-7) with the sample's σ, and its Jacobian, (B, C, C).

    d out_i/d z_j = (δ_ij - 1/C)/(σ + ε) - c_i·c_j/((C - 1)·σ·(σ + ε)²), c the centred logits.
    """
    count, classes = logits.shape
    values, jacobian = torch.zeros_like(logits), logits.new_zeros(count, classes, classes)
    for b, row in enumerate(logits.tolist()):
        mean, sigma = math.fsum(row) / classes, statistics.stdev(row)
        centred, scale = [value - mean for value in row], sigma + 1e-7
        for i in range(classes):
            values[b, i] = centred[i] / scale
            for j in range(classes):
                own = ((i == j) - 1 / classes) / scale
                shared = centred[i] * centred[j] / ((classes - 1) * sigma * scale**2)
                jacobian[b, i, j] = own - shared
    return values, jacobian


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(2, 8),
    st.sampled_from([1e-3, 1.0, 100.0]),
    st.floats(-100, 100),
)
def test_value_and_gradient_follow_the_formula(seed, batch, classes, scale, shift):
    logits = (draw(seed, (batch, classes), scale) + shift).requires_grad_()
    values, jacobian = reference(logits.detach())
    upstream = draw(seed + 1, (batch, classes))
    standardised = standardise_logits(logits)
    (gradient,) = torch.autograd.grad(standardised, logits, upstream)
    torch.testing.assert_close(standardised.detach(), values, rtol=1e-7, atol=1e-8)
    expected = torch.einsum("bi,bij->bj", upstream, jacobian)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8 / scale)


def test_gradcheck():
    assert torch.autograd.gradcheck(standardise_logits, draw(0, (3, 6)).requires_grad_())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-100, 100))
def test_rows_have_mean_zero_and_deviation_one_whatever_their_scale_and_offset(seed, scale, shift):
    logits = draw(seed, (4, 10))
    standardised = standardise_logits(scale * logits + shift)
    torch.testing.assert_close(standardised, standardise_logits(logits), rtol=1e-4, atol=1e-4)
    assert standardised.mean(dim=1).abs().max() < 1e-9
    torch.testing.assert_close(standardised.std(dim=1), torch.ones(4).double(), rtol=1e-4, atol=0)
    assert standardise_logits(-scale * logits).allclose(-standardised, atol=1e-4)


def test_order_and_bounds():
    # Section 4.2: monotone, and no z-score of C numbers is beyond (C - 1)/√C.
    logits = draw(1, (5, 12), 4.0)
    assert torch.equal(standardise_logits(logits).argsort(dim=1), logits.argsort(dim=1))
    sure = torch.zeros(1, 12).double()
    sure[0, 2] = 1e6
    assert standardise_logits(sure).max().item() == pytest.approx(11 / math.sqrt(12), rel=1e-9)


@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_equal_logits_give_zeros_and_a_finite_gradient(constant):
    logits = torch.full((2, 4), constant, requires_grad=True)
    standardised = standardise_logits(logits)
    standardised[:, 0].sum().backward()
    assert standardised.abs().max() == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("term", ["kd", "dist", "wttm", "ctkd"])
def test_a_method_standardises_both_sides_and_only_on_request(term):
    student, teacher = make_outputs(1, 6, classes=7), make_outputs(2, 6, classes=7)
    context = TermContext(7, torch.arange(9), 0, student, teacher)

    def value(standardise: bool, student_scale: float, teacher_scale: float) -> tuple[float, float]:
        method = {"name": "mine", "terms": [{"term": term, "standardise": standardise}]}
        objective = Objective(
            resolve_method(SheetMethod.model_validate(method), {}), context
        ).double()
        objective.begin_epoch(1)
        scaled = [
            type(side)(factor * side.logits, side.stages, side.preactivations, side.pooled)
            for side, factor in ((student, student_scale), (teacher, teacher_scale))
        ]
        parts = objective(make_batch(*scaled)).by_term
        return parts[term].item(), parts["cross_entropy"].item()

    plain = value(True, 1, 1)
    for scales in ((3, 1), (1, 3)):
        assert value(True, *scales)[0] == pytest.approx(plain[0], rel=1e-4)
        assert value(False, *scales)[0] != pytest.approx(value(False, 1, 1)[0], rel=1e-4)
    assert value(True, 3, 1)[1] == pytest.approx(value(False, 3, 1)[1], rel=1e-12)  # on raw logits
