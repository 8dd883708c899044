"""Attention transfer against the paper's attention maps in loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.at import AT, at_loss
from skd.terms import UnfitError
from tests.builders.losses import assert_follows, draw, make_batch, make_outputs, make_term

SHAPES = (
    ((3, 2, 3, 3), (3, 4, 3, 3)),
    ((2, 2, 4, 4), (2, 3, 2, 2)),
    ((2, 3, 2, 2), (2, 1, 4, 4)),
    ((2, 2, 2, 6), (2, 2, 4, 3)),
)


def pooled(maps, height, width):
    """Block means; both sizes divide."""
    rows, columns = maps.shape[1] // height, maps.shape[2] // width
    return np.array(
        [
            [
                [
                    channel[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].mean()
                    for j in range(width)
                ]
                for i in range(height)
            ]
            for channel in maps
        ]
    )


def attention(maps):
    """F²_mean of one image (C, H, W), divided by its length."""
    channels, height, width = maps.shape
    values = [
        math.fsum(maps[c, i, j] ** 2 for c in range(channels)) / channels
        for i in range(height)
        for j in range(width)
    ]
    length = math.sqrt(math.fsum(value**2 for value in values))
    return [value / length for value in values]


def reference(student, teacher):
    height, width = np.minimum(student.shape[2:], teacher.shape[2:])
    gaps = []
    for ours, theirs in zip(student, teacher, strict=True):
        a, b = (attention(pooled(maps, height, width)) for maps in (ours, theirs))
        gaps += [(x - y) ** 2 for x, y in zip(a, b, strict=True)]
    return math.fsum(gaps) / len(gaps)


@pytest.mark.parametrize(("ours", "theirs"), SHAPES)
def test_value_and_both_gradients_follow_the_formula(ours, theirs):
    assert_follows(at_loss, reference, draw(0, ours), draw(1, theirs))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    *[st.integers(1, 3)] * 3,
    st.sampled_from([(1, 1), (1, 2), (2, 2), (2, 4), (4, 2)]),
    st.floats(0.01, 100),
)
def test_formula_holds_for_any_maps(seed, batch, channels, others, sizes, scale):
    student = draw(seed, (batch, channels, sizes[0], sizes[0]), scale)
    teacher = draw(seed + 1, (batch, others, sizes[1], sizes[1]))
    value = reference(student.numpy(), teacher.numpy())
    assert at_loss(student, teacher).item() == pytest.approx(value, rel=1e-9, abs=1e-13)


def test_gradcheck():
    student, teacher = draw(2, (2, 2, 4, 4)).requires_grad_(), draw(3, (2, 3, 2, 2))
    assert torch.autograd.gradcheck(at_loss, (student, teacher.requires_grad_()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_zero_for_equal_maps_and_blind_to_scale_sign_and_order_of_channels(seed, scale):
    maps, other = draw(seed, (2, 3, 3, 3)), draw(seed + 1, (2, 4, 3, 3))
    changed = -scale * maps[:, [2, 0, 1]]
    assert at_loss(maps, maps).item() == 0
    assert at_loss(changed, maps).item() == pytest.approx(0, abs=1e-15)
    assert at_loss(changed, other).item() == pytest.approx(at_loss(maps, other).item(), rel=1e-9)
    assert at_loss(maps, other).item() > 0


def test_reduction_is_the_mean_over_images_and_places():
    # Each map attends to one place, and the places differ: (1² + 1²)/4 places.
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0], teacher[0, 0, 1, 1] = 5, 0.1
    assert at_loss(student, teacher).item() == pytest.approx(0.5)
    twice = torch.cat([student, student]), torch.cat([teacher, student])
    assert at_loss(*twice).item() == pytest.approx(0.25)


def test_a_map_of_zeros_has_a_finite_loss_and_no_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = at_loss(student, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss.isfinite()
    assert not student.grad.any()


def test_half_precision_is_raised_and_double_kept():
    student, teacher = 300 * draw(4, (2, 3, 4, 4)), 300 * draw(5, (2, 3, 4, 4))
    loss = at_loss(student.half(), teacher.half())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(at_loss(student, teacher).item(), rel=1e-2)
    assert at_loss(student, teacher).dtype == torch.float64


def test_defaults_are_repdistillers():
    chosen = AT.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (1000, 1, 0)
    assert (chosen.teacher, AT.needs) == ("raw", {"teacher_features"})
    with pytest.raises(ValueError, match="power"):
        AT.Settings(power=3)


def test_term_adds_the_stages_after_the_stem():
    student = make_outputs(0, 3, [(2, 4, 4), (2, 4, 4), (3, 2, 2)])
    teacher = make_outputs(1, 3, [(4, 4, 4), (3, 4, 4), (5, 4, 4)])
    term = make_term("at", student, teacher)
    loss = term(make_batch(student, teacher))
    pairs = [
        [maps.detach().numpy() for maps in pair]
        for pair in zip(student.stages, teacher.stages, strict=True)
    ]
    value = reference(*pairs[1]) + reference(*pairs[2])
    assert loss.item() == pytest.approx(value, rel=1e-12)
    loss.backward()
    assert [maps.grad is None for maps in student.stages] == [True, False, False]
    assert student.logits.grad is None
    assert student.pooled.grad is None
    assert not list(term.parameters())


@pytest.mark.parametrize(("ours", "theirs"), [(3, 4), (5, 4), (1, 1)])
def test_another_number_of_stages_is_refused(ours, theirs):
    student, teacher = (make_outputs(0, 2, [(2, 4, 4)] * count) for count in (ours, theirs))
    message = f"student has {ours - 1} and the teacher {theirs - 1}"
    with pytest.raises(UnfitError, match=message):
        make_term("at", student, teacher)
