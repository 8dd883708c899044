"""Similarity-preserving distillation against the paper's formula in loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.sp import SP, sp_loss
from tests.builders.losses import assert_follows, draw, make_batch, make_outputs, make_term


def similarities(features):
    """Rows of inner products of the images' flattened maps, each row divided by its length."""
    flat = [image.ravel().tolist() for image in features]
    rows = [[math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in flat] for a in flat]
    return [[value / math.hypot(*row) for value in row] for row in rows]


def reference(student, teacher):
    ours, theirs = similarities(student), similarities(teacher)
    count = len(ours)
    gaps = [(theirs[i][j] - ours[i][j]) ** 2 for i in range(count) for j in range(count)]
    return math.fsum(gaps) / count**2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((3, 2, 2, 2), (3, 4, 1, 1)), ((2, 1, 3, 2), (2, 1, 3, 2)), ((5, 4), (5, 6))],
)
def test_value_and_both_gradients_follow_the_formula(ours, theirs):
    assert_follows(sp_loss, reference, draw(0, ours), draw(1, theirs))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0.01, 100),
)
def test_formula_holds_for_any_maps(seed, batch, channels, others, scale):
    student = draw(seed, (batch, channels, 2, 2), scale)
    teacher = draw(seed + 1, (batch, others, 1, 3))
    value = reference(student.numpy(), teacher.numpy())
    assert sp_loss(student, teacher).item() == pytest.approx(value, rel=1e-9, abs=1e-15)


def test_gradcheck():
    student, teacher = draw(2, (3, 2, 2, 2)).requires_grad_(), draw(3, (3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(sp_loss, (student, teacher))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_zero_for_equal_maps_and_blind_to_scale_and_rotation(seed, scale):
    maps, other = draw(seed, (4, 2, 2, 2)), draw(seed + 1, (4, 3, 2, 2))
    rotation, _ = np.linalg.qr(draw(seed + 2, (8, 8)).numpy())
    changed = scale * maps.flatten(1) @ torch.from_numpy(rotation)
    assert sp_loss(maps, maps).item() == 0
    assert sp_loss(changed, maps).item() == pytest.approx(0, abs=1e-15)
    assert sp_loss(changed, other).item() == pytest.approx(sp_loss(maps, other).item(), rel=1e-8)
    assert sp_loss(maps, other).item() > 0


def test_reduction_is_the_sum_over_pairs_over_the_squared_batch():
    # Orthogonal images against equal ones: rows (1, 0) against (1, 1)/√2.
    apart, alike = torch.eye(2), torch.ones(2, 3)
    row = (1 - math.sqrt(0.5)) ** 2 + 0.5
    assert sp_loss(apart, alike).item() == pytest.approx(2 * row / 4)


def test_one_image_has_no_loss_and_zeros_no_nan():
    student = draw(4, (1, 2, 2, 2)).requires_grad_()
    sp_loss(student, draw(5, (1, 3, 2, 2))).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)
    student = torch.zeros(3, 2, 2, 2, requires_grad=True)
    loss = sp_loss(student, draw(5, (3, 3, 2, 2)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_half_precision_is_raised_and_double_kept():
    student, teacher = 100 * draw(6, (4, 3, 4, 4)), 100 * draw(7, (4, 3, 4, 4))
    loss = sp_loss(student.half(), teacher.half())  # inner products are beyond 65504
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sp_loss(student, teacher).item(), rel=1e-2)
    assert sp_loss(student, teacher).dtype == torch.float64


def test_defaults_are_repdistillers():
    chosen = SP.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (3000, 1, 0)
    assert (chosen.teacher, SP.needs) == ("raw", {"teacher_features"})
    with pytest.raises(ValueError, match="layer"):
        SP.Settings(layer=1)


def test_term_reads_the_last_stage_of_each_whatever_their_numbers():
    student = make_outputs(0, 3, [(2, 4, 4), (2, 4, 4), (3, 2, 2)])
    teacher = make_outputs(1, 3, [(4, 4, 4), (3, 4, 4), (5, 4, 4), (2, 1, 1)])
    term = make_term("sp", student, teacher)
    loss = term(make_batch(student, teacher))
    last = [outputs.stages[-1].detach().numpy() for outputs in (student, teacher)]
    assert loss.item() == pytest.approx(reference(*last), rel=1e-12)
    loss.backward()
    assert [maps.grad is None for maps in student.stages] == [True, True, False]
    assert student.logits.grad is None
    assert student.pooled.grad is None
    assert not list(term.parameters())
