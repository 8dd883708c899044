"""Relational distillation against the paper's sums over pairs and triplets in loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes


def huber(gap):
    return gap**2 / 2 if abs(gap) <= 1 else abs(gap) - 0.5


def potentials(features):
    """ψ_D of all pairs of distinct images: the distance over its mean."""
    pairs = list(itertools.permutations(range(len(features)), 2))
    distances = {pair: math.dist(*(features[i] for i in pair)) for pair in pairs}
    mean = math.fsum(distances.values()) / len(pairs)
    return {pair: distance / mean for pair, distance in distances.items()}


def reference_distance(student, teacher):
    ours, theirs = potentials(student), potentials(teacher)
    return math.fsum(huber(ours[pair] - theirs[pair]) for pair in ours) / len(student) ** 2


def cosine(vertex, first, second):
    one, two = first - vertex, second - vertex
    return math.fsum(one * two) / (math.hypot(*one) * math.hypot(*two))


def reference_angle(student, teacher):
    gaps = [
        huber(cosine(*(student[i] for i in triple)) - cosine(*(teacher[i] for i in triple)))
        for triple in itertools.permutations(range(len(student)), 3)
    ]
    return math.fsum(gaps) / len(student) ** 3


LOSSES = pytest.mark.parametrize(
    ("loss", "reference"),
    [(rkd_distance_loss, reference_distance), (rkd_angle_loss, reference_angle)],
)


@LOSSES
@pytest.mark.parametrize(("batch", "ours", "theirs"), [(2, 3, 4), (4, 2, 3), (5, 3, 1)])
def test_value_and_both_gradients_follow_the_formula(loss, reference, batch, ours, theirs):
    student = draw(0, (batch, ours), 3).requires_grad_()
    teacher = draw(1, (batch, theirs)).requires_grad_()
    result = loss(student, teacher)
    result.backward()
    s, t = student.detach().numpy(), teacher.detach().numpy()
    assert result.shape == ()
    assert result.item() == pytest.approx(reference(s, t), rel=1e-11, abs=1e-14)
    by_student = slopes(lambda x: reference(x, t), s)
    by_teacher = slopes(lambda x: reference(s, x), t)
    np.testing.assert_allclose(student.grad, by_student, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(teacher.grad, by_teacher, rtol=1e-6, atol=1e-9)


@LOSSES
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(2, 5),
    ours=st.integers(1, 5),
    theirs=st.integers(1, 5),
    scale=st.floats(0.01, 100),
)
def test_formula_holds_for_any_features(loss, reference, seed, batch, ours, theirs, scale):
    student, teacher = draw(seed, (batch, ours), scale), draw(seed + 1, (batch, theirs))
    value = reference(student.numpy(), teacher.numpy())
    assert loss(student, teacher).item() == pytest.approx(value, rel=1e-8, abs=1e-13)


@LOSSES
def test_gradcheck(loss, reference):
    student, teacher = draw(2, (4, 3)).requires_grad_(), draw(3, (4, 2)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (student, teacher))


@LOSSES
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10))
def test_zero_for_equal_features_and_blind_to_scale_shift_and_rotation(
    loss, reference, seed, scale
):
    features, other = draw(seed, (4, 3)), draw(seed + 1, (4, 5))
    rotation, _ = np.linalg.qr(draw(seed + 2, (3, 3)).numpy())
    changed = scale * features @ torch.from_numpy(rotation) + draw(seed + 3, (3,))
    assert loss(features, features).item() == 0
    assert loss(changed, features).item() == pytest.approx(0, abs=1e-14)
    assert loss(changed, other).item() == pytest.approx(loss(features, other).item(), rel=1e-6)
    assert loss(features, other).item() > 0


def test_reductions_by_hand():
    # Student distances 1, 1, 2 over their mean 4/3; the teacher's all equal.
    line = torch.tensor([[0.0], [1.0], [2.0]]).double()
    triangle = torch.tensor([[0, 0], [1, 0], [0.5, math.sqrt(0.75)]]).double()
    distance = 2 * (0.25**2 / 2 * 2 + 0.5**2 / 2) / 9
    assert rkd_distance_loss(line, triangle).item() == pytest.approx(distance)
    # Cosines of the line's angles 1, -1, 1 against ½: each angle is two ordered triplets of 27.
    angle = 2 * (0.5**2 / 2 * 2 + (1.5 - 0.5)) / 27
    assert rkd_angle_loss(line, triangle).item() == pytest.approx(angle)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_samples_have_a_finite_loss_and_a_moderate_gradient(loss, reference, dtype):
    features, teacher = draw(4, (5, 3)).to(dtype), draw(5, (5, 4)).to(dtype)
    student = features[[0, 0, 1, 2, 2]].requires_grad_()
    result = loss(student, teacher)
    result.backward()
    assert result.isfinite()
    assert student.grad.abs().max() < 10
    same = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    result = loss(same, teacher[:4])
    result.backward()
    assert result.isfinite()
    assert not same.grad.any()


@LOSSES
def test_one_image_has_no_loss(loss, reference):
    student = draw(6, (1, 3)).requires_grad_()
    result = loss(student, draw(7, (1, 4)))
    result.backward()
    assert result.item() == 0
    assert not student.grad.any()


@LOSSES
def test_close_features_far_from_zero_keep_their_relations_in_float32(loss, reference):
    # ‖x‖² + ‖y‖² - 2x·y would lose all digits here.
    features = draw(8, (5, 4)).mul(8192).round() / 8192 + 512  # exact in float32
    exact = loss(features, draw(9, (5, 4))).item()
    assert loss(features.float(), draw(9, (5, 4)).float()).item() == pytest.approx(exact, rel=1e-5)


@LOSSES
def test_half_precision_is_raised_and_double_kept(loss, reference):
    student, teacher = draw(10, (6, 4)), draw(11, (6, 3))
    result = loss(student.half(), teacher.half())
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(loss(student, teacher).item(), rel=1e-2)
    assert loss(student, teacher).dtype == torch.float64


def test_defaults_are_repdistillers():
    chosen = RKD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (1, 1, 0)
    assert (chosen.distance_weight, chosen.angle_weight) == (25, 50)
    assert (chosen.teacher, RKD.needs) == ("raw", {"teacher_pooled"})
    for name in ("distance_weight", "angle_weight"):
        with pytest.raises(ValueError, match=name):
            RKD.Settings(**{name: -1})


@pytest.mark.parametrize("weights", [(25, 50), (2, 0), (0, 3)])
def test_term_weighs_the_two_losses_of_the_pooled_features(weights):
    student, teacher = make_outputs(0, 4, width=5), make_outputs(1, 4, width=3)
    options = dict(zip(("distance_weight", "angle_weight"), weights, strict=True))
    term = make_term("rkd", student, teacher, **({} if weights == (25, 50) else options))
    loss = term(make_batch(student, teacher))
    pooled = [outputs.pooled.detach().numpy() for outputs in (student, teacher)]
    value = weights[0] * reference_distance(*pooled) + weights[1] * reference_angle(*pooled)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    loss.backward()
    assert student.pooled.grad is not None
    assert student.logits.grad is None
    assert not list(term.parameters())
