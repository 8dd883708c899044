"""Hints: the regressor in loops over its weights, and the error of its map."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.fitnet import FitNet, fitnet_loss
from skd.terms import TermContext, UnfitError
from tests.builders.losses import draw, make_batch, make_outputs, make_term

# Sizes of the student's and the teacher's map, the convolution between them: kernel, stride,
# padding, transposed.
CASES = {
    (3, 3): (1, 1, 0, False),
    (4, 3): (2, 1, 0, False),
    (5, 2): (4, 1, 0, False),
    (4, 2): (3, 2, 1, False),
    (2, 4): (4, 2, 1, True),
}


def convolved(maps, weight, bias, stride, padding):
    """Cross-correlation of (B, C, H, H) with weight (C', C, k, k), zeros around."""
    kernel = weight.shape[2]
    padded = np.pad(maps, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    size = (padded.shape[2] - kernel) // stride + 1
    result = np.zeros((len(maps), len(weight), size, size))
    for b, c, i, j in np.ndindex(result.shape):
        rows, columns = (slice(stride * at, stride * at + kernel) for at in (i, j))
        result[b, c, i, j] = (padded[b, :, rows, columns] * weight[c]).sum() + bias[c]
    return result


def transposed(maps, weight, bias, stride, padding):
    """Every element of (B, C, H, H) adds its multiple of weight (C, C', k, k), borders cut off."""
    count, _, size, _ = maps.shape
    kernel = weight.shape[2]
    full = stride * (size - 1) + kernel
    result = np.zeros((count, weight.shape[1], full, full))
    for b, c, i, j in np.ndindex(maps.shape):
        rows, columns = (slice(stride * at, stride * at + kernel) for at in (i, j))
        result[b, :, rows, columns] += maps[b, c, i, j] * weight[c]
    inside = slice(padding, full - padding)
    return result[:, :, inside, inside] + bias[:, None, None]


def regressed(maps, parameters, case):
    """Convolution, BatchNorm by the batch's statistics, ReLU."""
    weight, bias, scale, shift = parameters
    _, stride, padding, is_transposed = case
    maps = (transposed if is_transposed else convolved)(maps, weight, bias, stride, padding)
    result = np.zeros_like(maps)
    for c in range(maps.shape[1]):
        channel = maps[:, c]
        variance = ((channel - channel.mean()) ** 2).mean()
        normal = (channel - channel.mean()) / np.sqrt(variance + 1e-5)
        result[:, c] = np.maximum(normal * scale[c] + shift[c], 0)
    return result


def slopes(value, x, places, step=1e-6):
    """Central differences of a scalar function of an array, at some places of it."""
    derivatives = []
    for place in places:
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        derivatives.append((value(ahead) - value(behind)) / (2 * step))
    return derivatives


def make_pair(ours, theirs, count=3):
    maps = [[(2, ours, ours)] * 3, [(3, theirs, theirs)] * 3]
    return make_outputs(0, count, maps[0]), make_outputs(1, count, maps[1])


@pytest.mark.parametrize("sizes", CASES)
def test_value_and_all_gradients_follow_the_regressor_in_loops(sizes):
    student, teacher = make_pair(*sizes)
    term = make_term("fitnet", student, teacher)
    kernel = CASES[sizes][0]
    shapes = [tuple(parameter.shape) for parameter in term.parameters()]
    channels = (2, 3) if CASES[sizes][3] else (3, 2)
    assert shapes == [(*channels, kernel, kernel), (3,), (3,), (3,)]
    with torch.no_grad():  # scale and shift of BatchNorm are 1 and 0 at the start
        for offset, parameter in enumerate(itertools.islice(term.parameters(), 2, 4)):
            parameter.add_(draw(5 + offset, (3,), 0.3))
    loss = term(make_batch(student, teacher))
    loss.backward()

    target = teacher.stages[2].detach().numpy()
    leaves = [student.stages[2], *term.parameters()]
    arrays = [leaf.detach().numpy() for leaf in leaves]

    def value_with(index, array):
        changed = [*arrays[:index], array, *arrays[index + 1 :]]
        return ((regressed(changed[0], changed[1:], CASES[sizes]) - target) ** 2).mean()

    assert loss.shape == ()
    assert loss.item() == pytest.approx(value_with(0, arrays[0]), rel=1e-11)
    for index, (leaf, array) in enumerate(zip(leaves, arrays, strict=True)):
        places = list(np.ndindex(array.shape))[:: max(1, array.size // 12)]
        expected = slopes(lambda x, index=index: value_with(index, x), array, places)
        actual = [leaf.grad[place].item() for place in places]
        # A bias before BatchNorm has no slope.
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-8)
    assert [maps.grad is None for maps in student.stages] == [True, True, False]
    assert student.logits.grad is None
    assert student.pooled.grad is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), *[st.integers(1, 4)] * 3)
def test_loss_is_the_mean_square_over_all_elements(seed, batch, channels, size):
    shape = (batch, channels, size, size + 1)
    student, teacher = draw(seed, shape).requires_grad_(), draw(seed + 1, shape).requires_grad_()
    loss = fitnet_loss(student, teacher)
    loss.backward()
    gaps = (student - teacher).detach().numpy()
    assert loss.item() == pytest.approx(sum(x**2 for x in gaps.ravel()) / gaps.size, rel=1e-12)
    np.testing.assert_allclose(student.grad, 2 * gaps / gaps.size, rtol=1e-12)
    np.testing.assert_allclose(teacher.grad, -2 * gaps / gaps.size, rtol=1e-12)
    assert fitnet_loss(student, student).item() == 0


def test_gradcheck_of_the_loss_and_of_the_term():
    first, second = draw(2, (2, 2, 3, 3)).requires_grad_(), draw(3, (2, 2, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(fitnet_loss, (first, second))
    student, teacher = make_pair(2, 4)
    term = make_term("fitnet", student, teacher)
    leaves = (student.stages[2], *term.parameters())
    assert torch.autograd.gradcheck(lambda *_: term(make_batch(student, teacher)), leaves)


def test_half_precision_is_raised_and_double_kept():
    first, second = draw(6, (2, 2, 3, 3), 300), draw(7, (2, 2, 3, 3), 300)
    loss = fitnet_loss(first.half(), second.half())  # squares are beyond 65504
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(fitnet_loss(first, second).item(), rel=1e-2)
    assert fitnet_loss(first, second).dtype == torch.float64


def test_defaults_are_repdistillers():
    chosen = FitNet.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.layer) == (100, 1, 2)
    assert (chosen.warmup_epochs, chosen.teacher) == (0, "raw")
    assert FitNet.needs == {"teacher_features"}
    with pytest.raises(ValueError, match="layer"):
        FitNet.Settings(layer=-1)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_layer_chooses_the_stage_of_both(layer):
    maps = [[(2 + i, 4, 4) for i in range(4)], [(5 + i, 4, 4) for i in range(4)]]
    student, teacher = make_outputs(0, 3, maps[0]), make_outputs(1, 3, maps[1])
    term = make_term("fitnet", student, teacher, layer=layer)
    loss = term(make_batch(student, teacher))
    loss.backward()
    parameters = [parameter.detach().numpy() for parameter in term.parameters()]
    ours, theirs = (outputs.stages[layer].detach().numpy() for outputs in (student, teacher))
    value = ((regressed(ours, parameters, CASES[3, 3]) - theirs) ** 2).mean()
    assert loss.item() == pytest.approx(value, rel=1e-11)
    assert [maps.grad is not None for maps in student.stages] == [i == layer for i in range(4)]


def test_regressor_trains_and_repeats():
    student, teacher = make_pair(4, 2)
    values = []
    for _ in range(2):
        term = make_term("fitnet", student, teacher)
        loss = term(make_batch(student, teacher))
        loss.backward()
        assert all(parameter.grad is not None for parameter in term.parameters())
        values.append([loss, *(parameter.grad for parameter in term.parameters())])
    for first, second in zip(*values, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("ours", "theirs", "layer", "message"),
    [
        (
            [(2, 4, 4)] * 3,
            [(3, 4, 4)] * 5,
            3,
            "layer 3 does not exist: the student's last layer is 2, the teacher's 4",
        ),
        (
            [(2, 4, 4)] * 3,
            [(3, 4, 4)] * 2,
            2,
            "layer 2 does not exist: the student's last layer is 2, the teacher's 1",
        ),
        ([(2, 3, 3)], [(3, 4, 4)], 0, "3x3, is smaller than the teacher's, 4x4"),
        ([(2, 2, 2)], [(3, 8, 8)], 0, "2x2, is smaller than the teacher's, 8x8"),
        ([(2, 4, 2)], [(3, 4, 4)], 0, "student's is 4x2"),
        ([(2, 4, 4)], [(3, 4, 2)], 0, "teacher's 4x2"),
    ],
)
def test_pairs_that_cannot_be_matched_are_refused(ours, theirs, layer, message):
    with pytest.raises(UnfitError, match=message):
        make_term("fitnet", make_outputs(0, 2, ours), make_outputs(1, 2, theirs), layer=layer)


def test_sizes_may_come_from_the_meta_device():
    student, teacher = (
        replace(outputs, stages=tuple(maps.to("meta") for maps in outputs.stages))
        for outputs in make_pair(2, 4)
    )
    term = FitNet(FitNet.Settings(), TermContext(5, torch.arange(5), 0, student, teacher))
    assert {parameter.device.type for parameter in term.parameters()} == {"cpu"}
