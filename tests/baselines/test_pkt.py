"""Probabilistic knowledge transfer against the paper's formula in loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.pkt import PKT, pkt_loss
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes


def probabilities(features):
    """K(x_i, x_j)/Σ_k K(x_i, x_k) with K = ½(cosine + 1)."""
    rows = features.tolist()
    kernel = [
        [
            0.5 * (math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms + 1)
            for b in rows
            for norms in [(math.hypot(*a) + 1e-7) * (math.hypot(*b) + 1e-7)]
        ]
        for a in rows
    ]
    return [[value / math.fsum(row) for value in row] for row in kernel]


def reference(student, teacher):
    q, p = probabilities(student), probabilities(teacher)
    count = len(p)
    parts = [
        p[i][j] * (math.log(p[i][j] + 1e-7) - math.log(q[i][j] + 1e-7))
        for i in range(count)
        for j in range(count)
    ]
    return math.fsum(parts) / count**2


@pytest.mark.parametrize(("batch", "ours", "theirs"), [(2, 3, 3), (5, 4, 7), (8, 2, 1)])
def test_value_and_both_gradients_follow_the_formula(batch, ours, theirs):
    student = draw(0, (batch, ours)).requires_grad_()
    teacher = draw(1, (batch, theirs)).requires_grad_()
    loss = pkt_loss(student, teacher)
    loss.backward()
    s, t = student.detach().numpy(), teacher.detach().numpy()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(s, t), rel=1e-10)
    by_student = slopes(lambda x: reference(x, t), s)
    np.testing.assert_allclose(student.grad, by_student, rtol=1e-5, atol=1e-9)
    if theirs > 1:  # the cosine of one-dimensional features is ±1 whatever their size
        by_teacher = slopes(lambda x: reference(s, x), t)
        np.testing.assert_allclose(teacher.grad, by_teacher, rtol=1e-5, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(2, 6),
    st.integers(2, 6),
    st.floats(0.01, 100),
)
def test_formula_holds_for_any_features(seed, batch, ours, theirs, scale):
    student, teacher = draw(seed, (batch, ours), scale), draw(seed + 1, (batch, theirs))
    value = reference(student.numpy(), teacher.numpy())
    assert pkt_loss(student, teacher).item() == pytest.approx(value, rel=1e-8, abs=1e-15)


def test_gradcheck():
    student, teacher = draw(2, (4, 3)).requires_grad_(), draw(3, (4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(pkt_loss, (student, teacher))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_zero_for_equal_features_and_blind_to_the_samples_scales_and_rotation(seed):
    features, other = draw(seed, (5, 4)), draw(seed + 1, (5, 3))
    rotation, _ = np.linalg.qr(draw(seed + 2, (4, 4)).numpy())
    scales = draw(seed + 3, (5, 1)).abs() + 0.5
    changed = scales * features @ torch.from_numpy(rotation)
    assert pkt_loss(features, features).item() == 0
    before = pkt_loss(features, other).item()
    assert before > 0
    # The 1e-7 beside each norm has an effect.
    assert pkt_loss(changed, other).item() == pytest.approx(before, rel=1e-4, abs=1e-7)


def test_reduction_is_the_mean_over_all_pairs_and_the_teacher_is_the_weight():
    # Opposite features: kernel 1 and, by the 1e-7 beside the norms, 1e-7 for 0. Equal ones: 1, 1.
    opposite, equal = torch.tensor([[1.0], [-1.0]]).double(), torch.ones(2, 1).double()
    value = (0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 2e-7)) * 2 / 4
    assert pkt_loss(opposite, equal).item() == pytest.approx(value, rel=1e-5)
    assert pkt_loss(equal, opposite).item() == pytest.approx(math.log(2) * 2 / 4, rel=1e-5)


def test_one_image_has_no_loss_and_a_feature_of_zeros_no_nan():
    student = draw(4, (1, 3)).requires_grad_()
    loss = pkt_loss(student, draw(5, (1, 2)))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)
    student = torch.cat([torch.zeros(1, 3), torch.ones(2, 3)]).requires_grad_()
    loss = pkt_loss(student, draw(5, (3, 2)).float())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_half_precision_is_raised_and_double_kept():
    student, teacher = draw(6, (8, 5)), draw(7, (8, 4))
    loss = pkt_loss(student.bfloat16(), teacher.bfloat16())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pkt_loss(student, teacher).item(), rel=5e-2)
    assert pkt_loss(student, teacher).dtype == torch.float64


def test_defaults_are_repdistillers():
    chosen = PKT.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (30000, 1, 0)
    assert (chosen.teacher, PKT.needs) == ("raw", {"teacher_pooled"})
    with pytest.raises(ValueError, match="epsilon"):
        PKT.Settings(epsilon=1)


def test_term_reads_the_pooled_features():
    student, teacher = make_outputs(0, 4, width=5), make_outputs(1, 4, width=3)
    term = make_term("pkt", student, teacher)
    loss = term(make_batch(student, teacher))
    pooled = [outputs.pooled.detach().numpy() for outputs in (student, teacher)]
    assert loss.item() == pytest.approx(reference(*pooled), rel=1e-10)
    loss.backward()
    assert student.pooled.grad is not None
    assert student.logits.grad is None
    assert not list(term.parameters())
