"""OFD: margins against integrals of the normal density, distances and gradients in loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import nn

from baselines.ofd import margins, partial_l2
from skd.terms import UnfitError
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes
from tests.builders.teachers import Parts, batch_normed

CHANNELS = (2, 3, 4)  # of the teacher's stages, the stem's first
STAGES = [(2, 8, 8), (2, 4, 4), (3, 2, 2)]  # the student's


def make_pair(preactivations=True):
    student = make_outputs(0, 3, STAGES, preactivations=preactivations)
    teacher = make_outputs(1, 3, [(CHANNELS[0], 8, 8), (CHANNELS[1], 8, 8), (CHANNELS[2], 2, 2)])
    return student, teacher


def expectation(scale, shift):
    """E[x | x < 0] for x ~ N(shift, scale²), by quadrature."""

    def density(x):
        return math.exp(-(((x - shift) / scale) ** 2) / 2)

    low = min(shift, 0) - 12 * scale
    mass, _ = quad(density, low, 0, epsabs=0, epsrel=1e-12)
    moment, _ = quad(lambda x: x * density(x), low, 0, epsabs=0, epsrel=1e-12)
    return moment / mass


def margin_reference(scale, shift):
    is_rare = math.erfc(shift / scale / math.sqrt(2)) / 2 <= 0.001
    return -3 * scale if is_rare else expectation(scale, shift)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 5), st.floats(-4, 3), st.sampled_from([1, -1]))
def test_a_margin_is_the_mean_of_the_negative_values(scale, ratio, sign):
    shift = scale * ratio
    (margin,) = margins(torch.tensor([sign * scale]), torch.tensor([shift])).tolist()
    # The arguments are rounded to float32.
    assert margin == pytest.approx(expectation(scale, shift), rel=1e-5)
    assert margin < 0


def test_where_negative_values_are_rare_the_margin_is_three_deviations_below_zero():
    bound = 3.0902323  # P(x < 0) = 0.001
    weight = torch.tensor([2.0, -2.0, 2.0], dtype=torch.float64)
    bias = torch.tensor([2 * bound + 1e-4, 50.0, 2 * bound - 1e-4], dtype=torch.float64)
    values = margins(weight, bias).tolist()
    assert values[:2] == [-6, -6]
    assert -1 < values[2] < 0
    assert margins(weight, bias).dtype == torch.float64


def test_a_constant_channel_has_a_finite_margin():
    weight, bias = torch.zeros(3), torch.tensor([-0.5, 0.0, 0.5])
    assert margins(weight, bias).tolist() == [-0.5, 0, 0]
    # The limit for ever smaller variances.
    assert margins(torch.tensor([1e-3]), bias[:1]).item() == pytest.approx(-0.5, rel=1e-4)


def reference(student, teacher, margin):
    """The three cases of the paper, element by element, and the gradient by the student."""
    value, gradient = 0.0, np.zeros_like(student)
    for place in np.ndindex(student.shape):
        s, t, m = student[place], teacher[place], margin[place[1]]
        goal = t
        if t <= m:
            goal = m
            counts = s > m
        else:
            counts = s > t if t <= 0 else True
        if counts:
            value += (s - goal) ** 2 / len(student)
            gradient[place] = 2 * (s - goal) / len(student)
    return value, gradient


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_the_distance_and_its_gradient_follow_the_cases(seed, batch, channels, size):
    shape = (batch, channels, size, size + 1)
    student, teacher = draw(seed, shape).requires_grad_(), draw(seed + 1, shape)
    margin = -draw(seed + 2, (channels,)).abs()
    loss = partial_l2(student, teacher, margin)
    loss.backward()
    value, gradient = reference(student.detach().numpy(), teacher.numpy(), margin.numpy())
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(student.grad, gradient, rtol=1e-12, atol=1e-15)


def test_every_case_occurs():
    student = torch.tensor([-2.0, 0.5, -0.4, 0.2, -1.0, 3.0]).view(1, 1, 1, 6)
    teacher = torch.tensor([-1.5, -1.5, -0.3, -0.3, 1.0, 1.0]).view(1, 1, 1, 6)
    margin = torch.tensor([-0.7])
    # Below the margin, above it; below a negative target, above it; a positive target twice.
    expected = [0, 1.2**2, 0, 0.5**2, 2.0**2, 2.0**2]
    elements = zip(student.flatten(), teacher.flatten(), strict=True)
    values = [
        partial_l2(s.view(1, 1, 1, 1), t.view(1, 1, 1, 1), margin).item() for s, t in elements
    ]
    assert values == pytest.approx(expected, rel=1e-6)
    assert partial_l2(student, teacher, margin).item() == pytest.approx(sum(expected), rel=1e-6)


def total_reference(maps, weights, norms, teacher, network):
    """The sum over the stages after the stem, the last with weight 1, from raw arrays."""
    total = 0.0
    for index, (student, weight, norm) in enumerate(zip(maps, weights, norms, strict=True)):
        connected = torch.einsum("bchw,dc->bdhw", student, weight[:, :, 0, 0])
        connected = batch_normed(connected, norm).detach().numpy()
        goal = teacher.preactivations[index + 1].detach().numpy()
        step = goal.shape[2] // connected.shape[2]
        if step > 1:
            goal = goal.reshape(*goal.shape[:2], goal.shape[2] // step, step, -1, step)
            goal = goal.mean(axis=(3, 5))
        batch_norm = network.norms[index + 1]
        pairs = zip(batch_norm.weight.abs().tolist(), batch_norm.bias.tolist(), strict=True)
        margin = [margin_reference(scale, shift) for scale, shift in pairs]
        total += reference(connected, goal, margin)[0] / 2 ** (len(maps) - 1 - index)
    return total


def test_the_term_adds_the_stages_after_the_stem_and_all_its_parameters_train():
    student, teacher = make_pair()
    network = Parts(CHANNELS[-1], 5, CHANNELS)
    term = make_term("ofd", student, teacher, teacher_network=network)
    loss = term(make_batch(student, teacher))
    loss.backward()
    convolutions = [connector[0].weight for connector in term.connectors]
    norms = [connector[1] for connector in term.connectors]
    maps = [maps.detach() for maps in student.preactivations[1:]]
    weights = [weight.detach() for weight in convolutions]
    assert loss.item() == pytest.approx(
        total_reference(maps, weights, norms, teacher, network), rel=1e-9
    )
    for index in range(2):

        def with_maps(changed, index=index):
            return total_reference(
                [*maps[:index], changed, *maps[index + 1 :]], weights, norms, teacher, network
            )

        def with_weight(changed, index=index):
            return total_reference(
                maps, [*weights[:index], changed, *weights[index + 1 :]], norms, teacher, network
            )

        by_weight = slopes(with_weight, weights[index])
        np.testing.assert_allclose(convolutions[index].grad, by_weight, rtol=1e-5, atol=1e-7)
        by_student = slopes(with_maps, maps[index])
        np.testing.assert_allclose(
            student.preactivations[index + 1].grad, by_student, rtol=1e-5, atol=1e-7
        )
    assert student.stages[0].grad is None
    assert student.logits.grad is None
    assert all(parameter.grad.any() for parameter in term.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_margins_are_kept_exactly_but_not_in_checkpoints():
    student, teacher = make_pair()
    network = Parts(CHANNELS[-1], 5, CHANNELS)
    term = make_term("ofd", student, teacher, teacher_network=network)
    for stage in (1, 2):
        norm = network.norms[stage]
        expected = margins(norm.weight, norm.bias)
        assert torch.equal(term.get_buffer(f"margin_{stage}"), expected)
    assert not any("margin" in key for key in term.state_dict())


def test_the_authors_weight_beside_cross_entropy():
    defaults = make_term(
        "ofd", *make_pair(), teacher_network=Parts(CHANNELS[-1], 5, CHANNELS)
    ).settings
    assert (defaults.weight, defaults.cross_entropy) == (1e-3, 1)


def test_a_student_may_be_compared_after_its_activation():
    student, teacher = make_pair(preactivations=False)
    network = Parts(CHANNELS[-1], 5, CHANNELS)
    with pytest.raises(
        UnfitError, match=r"student's pre-activations; it defines none\. Set student"
    ):
        make_term("ofd", student, teacher, teacher_network=network)
    term = make_term("ofd", student, teacher, teacher_network=network, student_features="activated")
    term(make_batch(student, teacher)).backward()
    assert [maps.grad is None for maps in student.stages] == [True, False, False]


def without_bias(network):
    network.norms[1] = nn.BatchNorm2d(CHANNELS[1], affine=False)
    return network


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Parts(4, 5, (2, None, 4)), "its stage 1 has none"),
        (Parts(4, 5, (2, 3, 7)), "its stage 2 has none"),
        (without_bias(Parts(4, 5, CHANNELS)), "its stage 1 has none"),
    ],
)
def test_a_teacher_without_a_batchnorm_there_is_refused(network, words):
    with pytest.raises(UnfitError, match=words):
        make_term("ofd", *make_pair(), teacher_network=network)


def test_other_networks_that_do_not_fit_are_refused():
    student, teacher = make_pair()
    network = Parts(4, 5, CHANNELS)
    with pytest.raises(UnfitError, match="teacher's pre-activations; it defines none"):
        make_term("ofd", student, replace(teacher, preactivations=()), teacher_network=network)
    fewer = replace(student, preactivations=student.preactivations[:2])
    with pytest.raises(UnfitError, match="the student has 1 and the teacher 2"):
        make_term("ofd", fewer, teacher, teacher_network=network)
