"""VID against the Gaussian's negative log-likelihood in loops, with its derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.vid import VID, vid_loss
from skd.terms import UnfitError
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes


def reference(mean, variance, teacher):
    """-log N(t; μ, σ²) - ½·log 2π, mean over elements; derivatives by μ, σ² and t."""
    value, count = 0.0, mean.size
    by_mean, by_variance = np.zeros_like(mean), np.zeros_like(variance)
    for b, c, i, j in np.ndindex(mean.shape):
        gap, sigma = teacher[b, c, i, j] - mean[b, c, i, j], math.sqrt(variance[c])
        value += (gap**2 / (2 * sigma**2) + math.log(sigma)) / count
        by_mean[b, c, i, j] = -gap / sigma**2 / count
        by_variance[c] += (1 / (2 * sigma**2) - gap**2 / (2 * sigma**4)) / count
    return value, by_mean, by_variance, -by_mean


def blocks(maps, size):
    """Block means of (B, C, H, H); the size divides."""
    step = maps.shape[2] // size
    result = np.zeros((*maps.shape[:2], size, size))
    for i, j in np.ndindex(size, size):
        rows, columns = (slice(at * step, (at + 1) * step) for at in (i, j))
        result[:, :, i, j] = maps[:, :, rows, columns].mean(axis=(2, 3))
    return result


def stage_reference(student, teacher, alpha, weights):
    """The loss of one stage from the raw maps: three linear maps of the channels at each place."""
    size = min(student.shape[2], teacher.shape[2])
    student, teacher = blocks(student, size), blocks(teacher, size)
    mean = np.zeros_like(teacher)
    for b, i, j in np.ndindex(len(student), size, size):
        hidden = np.maximum(weights[0][:, :, 0, 0] @ student[b, :, i, j], 0)
        hidden = np.maximum(weights[1][:, :, 0, 0] @ hidden, 0)
        mean[b, :, i, j] = weights[2][:, :, 0, 0] @ hidden
    variance = np.array([math.log(1 + math.exp(a)) + 1e-5 for a in alpha])
    return reference(mean, variance, teacher)[0]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.floats(1e-3, 50),
)
def test_value_and_all_gradients_follow_the_formula(seed, batch, channels, size, spread):
    shape = (batch, channels, size, size + 1)
    mean, teacher = (draw(seed + i, shape).requires_grad_() for i in range(2))
    variance = (spread * draw(seed + 2, (channels,)).exp()).requires_grad_()
    loss = vid_loss(mean, variance, teacher)
    loss.backward()
    leaves = mean, variance, teacher
    value, *gradients = reference(*(leaf.detach().numpy() for leaf in leaves))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        np.testing.assert_allclose(leaf.grad, gradient, rtol=1e-9, atol=1e-12)


def test_gradcheck():
    mean, teacher = (draw(i, (2, 3, 2, 2)).requires_grad_() for i in range(2))
    variance = draw(2, (3,)).exp().requires_grad_()
    assert torch.autograd.gradcheck(vid_loss, (mean, variance, teacher))


def test_the_best_variance_is_the_mean_squared_error_and_a_perfect_mean_goes_below_zero():
    mean, teacher = draw(3, (4, 1, 3, 3)), draw(4, (4, 1, 3, 3))
    best = ((mean - teacher) ** 2).mean().reshape(1).requires_grad_()
    vid_loss(mean, best, teacher).backward()
    assert best.grad.item() == pytest.approx(0, abs=1e-14)
    assert vid_loss(mean, torch.tensor([0.01]), mean).item() == pytest.approx(math.log(0.1))


def make_pair():
    """Three stages after the stem: the teacher's larger, equal, the student's larger."""
    student = make_outputs(0, 2, [(2, 4, 4), (2, 2, 2), (3, 2, 2), (2, 4, 4)])
    teacher = make_outputs(1, 2, [(3, 4, 4), (2, 4, 4), (4, 2, 2), (3, 2, 2)])
    return student, teacher


def test_term_adds_the_stages_after_the_stem_and_all_its_parameters_train():
    student, teacher = make_pair()
    term = make_term("vid", student, teacher)
    with torch.no_grad():
        for seed, predictor in enumerate(term.predictors):
            predictor.alpha.copy_(draw(40 + seed, predictor.alpha.shape, 2))
            for offset, weight in enumerate(predictor.mean.parameters()):
                weight.copy_(draw(50 + 3 * seed + offset, weight.shape))
    loss = term(make_batch(student, teacher))
    loss.backward()
    value = 0.0
    for stage, predictor in enumerate(term.predictors, start=1):
        leaves = [student.stages[stage], predictor.alpha, *predictor.mean.parameters()]
        maps, alpha, *weights = (leaf.detach().numpy() for leaf in leaves)
        target = teacher.stages[stage].detach().numpy()
        value += stage_reference(maps, target, alpha, weights)
        by_maps = slopes(lambda x, t=target, a=alpha, w=weights: stage_reference(x, t, a, w), maps)
        by_alpha = slopes(lambda a, x=maps, t=target, w=weights: stage_reference(x, t, a, w), alpha)
        np.testing.assert_allclose(leaves[0].grad, by_maps, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(leaves[1].grad, by_alpha, rtol=1e-5, atol=1e-8)
    assert loss.item() == pytest.approx(value, rel=1e-11)
    assert student.stages[0].grad is None
    assert student.logits.grad is None
    assert student.pooled.grad is None
    assert all(parameter.grad.any() for parameter in term.parameters())


def test_predictors_are_three_bias_free_layers_as_wide_as_the_teacher():
    shapes = [
        [tuple(weight.shape) for weight in predictor.mean.parameters()]
        for predictor in make_term("vid", *make_pair()).predictors
    ]
    assert shapes == [
        [(wide, own, 1, 1), (wide, wide, 1, 1), (wide, wide, 1, 1)]
        for own, wide in ((2, 2), (3, 4), (2, 3))
    ]


@pytest.mark.parametrize("initial", [None, 0.02, 1.0, 1000.0])
def test_variances_start_at_the_setting(initial):
    student, teacher = make_pair()
    options = {} if initial is None else {"initial_variance": initial}
    term = make_term("vid", student, teacher, **options)
    for predictor, maps in zip(term.predictors, student.stages[1:], strict=True):
        _, variance = predictor(maps)
        np.testing.assert_allclose(variance.detach(), initial or 5.0, rtol=1e-5)


def test_a_large_alpha_is_stable_and_a_small_one_keeps_the_variance_positive():
    student, teacher = make_pair()
    term = make_term("vid", student, teacher).float()
    for alpha, least, most in ((1000.0, 999, 1001), (-1000.0, 0.9e-5, 1.1e-5)):
        with torch.no_grad():
            term.predictors[0].alpha.fill_(alpha)
        mean, variance = term.predictors[0](student.stages[1].float())
        assert variance.min() > least
        assert variance.max() < most
        term.zero_grad()
        vid_loss(mean, variance, torch.ones_like(mean)).backward()
        assert term.predictors[0].alpha.grad.isfinite().all()


def test_half_precision_maps_are_raised():
    pair = make_pair()
    term = make_term("vid", *pair)
    exact = term(make_batch(*pair)).item()
    halves = [replace(out, stages=tuple(maps.half() for maps in out.stages)) for out in pair]
    loss = term.float()(make_batch(*halves))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-2)


def test_initial_weights_repeat():
    first, second = (make_term("vid", *make_pair()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_defaults_are_repdistillers():
    chosen = VID.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.initial_variance) == (1, 1, 5)
    assert (chosen.warmup_epochs, chosen.teacher) == (0, "raw")
    assert VID.needs == {"teacher_features"}
    for variance in (0, -1, 1e-5):
        with pytest.raises(ValueError, match="initial_variance"):
            VID.Settings(initial_variance=variance)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 4), (5, 4), (1, 1)])
def test_another_number_of_stages_is_refused(ours, theirs):
    student, teacher = (make_outputs(0, 2, [(2, 4, 4)] * count) for count in (ours, theirs))
    message = f"student has {ours - 1} and the teacher {theirs - 1}"
    with pytest.raises(UnfitError, match=message):
        make_term("vid", student, teacher)
