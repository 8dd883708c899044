"""The simplifier against its formula in loops; its identity with KD, gradients and control."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.kd import kd_loss
from baselines.simplifier import Simplifier, SimplifierSettings
from skd.common.frozen import canonical
from skd.randomness import Draws
from skd.terms import Batch, Outputs
from tests.builders.losses import draw
from tests.builders.simplifiers import build, context_of, reference

FORMS = [
    {"axis": axis, "values": values, "combination": combination, "layer_norm": norm, "heads": heads}
    for axis, values, combination, norm, heads in itertools.product(
        ("batch", "classes"),
        ("projected", "rows"),
        ("residual", "mean", "attention"),
        (True, False),
        (1, 2),
    )
]


def assert_matches(simplifier: Simplifier, logits: Tensor) -> None:
    got = simplifier.simplify(logits)
    assert got.shape == logits.shape
    np.testing.assert_allclose(got.detach(), reference(simplifier, logits), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_every_form_follows_the_formula(form):
    assert_matches(build(6, **form), draw(3, (5, 6), 3.0))


@pytest.mark.parametrize("axis", ["batch", "classes"])
@pytest.mark.parametrize("softening", ["log_softmax", "scaled", "softmax"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_every_softening_follows_the_formula(softening, axis, temperature):
    simplifier = build(6, softening=softening, axis=axis, temperature=temperature)
    assert_matches(simplifier, draw(3, (4, 6), 3.0))


@pytest.mark.parametrize(("values", "combination"), [("projected", "residual"), ("rows", "mean")])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_normalised_scaled_softening_teaches_as_log_softmax_does(values, combination, layer_norm):
    form = {"values": values, "combination": combination, "layer_norm": layer_norm}
    taught = [
        build(6, softening=softening, **form).simplify(draw(3, (4, 6), 3.0)).softmax(1)
        for softening in ("log_softmax", "scaled")
    ]
    assert torch.allclose(*taught, rtol=1e-9) == layer_norm


@pytest.mark.parametrize(("width", "heads"), [(4, 1), (4, 4), (10, 2), (9, 3)])
@pytest.mark.parametrize("axis", ["batch", "classes"])
def test_another_width_follows_the_formula(axis, width, heads):
    assert_matches(build(6, axis=axis, width=width, heads=heads), draw(3, (4, 6), 3.0))


@pytest.mark.parametrize("batch", [1, 16])
def test_small_last_batches_follow_the_formula(batch):
    assert_matches(build(20), draw(4, (batch, 20), 3.0))


def test_defaults_are_the_reference_form():
    chosen = SimplifierSettings()
    assert chosen.model_dump() == {
        "temperature": 4.0,
        "softening": "log_softmax",
        "axis": "batch",
        "group": None,
        "heads": 1,
        "width": None,
        "layer_norm": True,
        "values": "projected",
        "combination": "residual",
        "output_init": "zero",
        "trainable": True,
        "objective": "joint",
        "anchor": 1.0,
        "weight_decay": None,
        "learning_rate_multiplier": 0.00001,
    }
    shapes = {name: tuple(p.shape) for name, p in build(7).named_parameters()}
    square = {f"{name}.weight": (7, 7) for name in ("query", "key", "value", "output")}
    assert shapes == {"norm.weight": (7,), "norm.bias": (7,), **square}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(2, 9),
    st.floats(0.5, 10),
    st.floats(0.5, 10),
    st.sampled_from(["log_softmax", "scaled"]),
    st.sampled_from(["batch", "classes"]),
)
def test_identity_simplifier_is_kd_in_value_and_gradient(
    seed, batch, classes, t_simplifier, t_kd, softening, axis
):
    """A zero W_o gives z minus a constant per row, whatever the two temperatures are."""
    simplifier = build(classes, seed=None, temperature=t_simplifier, softening=softening, axis=axis)
    teacher = draw(seed, (batch, classes), 8.0)
    results = []
    for targets in (teacher, simplifier.simplify(teacher)):
        student = draw(seed + 1, (batch, classes), 3.0).requires_grad_()
        loss = kd_loss(student, targets, t_kd)
        loss.backward()
        results.append((loss.detach(), student.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_a_simplifier_other_than_the_identity_differs_from_kd():
    teacher, student = draw(0, (4, 6), 3.0), draw(1, (4, 6), 3.0)
    raw = kd_loss(student, teacher, 4.0)
    for form in ({"output_init": "default"}, {"softening": "softmax"}, {"values": "rows"}):
        simplified = build(6, None, **form).simplify(teacher)
        assert not torch.isclose(kd_loss(student, simplified, 4.0), raw)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["projected", "rows"]), st.permutations(range(6)))
def test_batch_axis_commutes_with_permutations_of_the_batch(seed, values, order):
    simplifier, logits = build(5, seed % 100, values=values), draw(seed, (6, 5), 3.0)
    torch.testing.assert_close(
        simplifier.simplify(logits[order]), simplifier.simplify(logits)[order]
    )


def test_batch_axis_depends_on_the_batch_and_classes_axis_does_not():
    logits = draw(0, (6, 5), 3.0)
    changed = torch.cat([logits[:1], draw(1, (3, 5), 3.0)])
    for values in ("projected", "rows"):
        alone = build(5, axis="classes", values=values).simplify
        torch.testing.assert_close(alone(changed)[0], alone(logits)[0], rtol=1e-12, atol=1e-12)
        mixing = build(5, axis="batch", values=values).simplify
        assert not torch.allclose(mixing(changed)[0], mixing(logits)[0], rtol=1e-3)


# Groups.
GROUPED = [{}, {"values": "rows"}, {"heads": 2}, {"combination": "attention", "layer_norm": False}]


@pytest.mark.parametrize("form", GROUPED, ids=str)
@pytest.mark.parametrize(("batch", "group"), [(6, 3), (7, 3), (8, 3), (5, 1), (4, 4), (2, 3)])
def test_in_groups_each_group_follows_the_formula_by_itself(batch, group, form):
    simplifier, logits = build(6, group=group, **form), draw(3, (batch, 6), 3.0)
    parts = [reference(simplifier, rows) for rows in logits.split(group)]
    expected = np.concatenate(parts)
    np.testing.assert_allclose(simplifier.simplify(logits).detach(), expected, rtol=1e-9, atol=1e-9)
    if group < batch:
        ungrouped = build(6, **form).simplify(logits).detach()
        assert not np.allclose(ungrouped, expected, rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.integers(0, 5),
    st.sampled_from(["projected", "rows"]),
)
def test_a_group_of_the_whole_batch_or_more_is_not_a_grouping(seed, batch, more, values):
    logits, results = draw(seed, (batch, 6), 3.0), []
    for group in (None, batch + more):
        simplifier = build(6, seed % 100, group=group, values=values)
        mixed = simplifier.simplify(logits)
        slopes = torch.autograd.grad(mixed.square().sum(), list(simplifier.parameters()))
        results.append([mixed, *slopes])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_group_does_not_depend_on_the_others():
    simplifier, logits = build(5, group=3), draw(0, (8, 5), 3.0)
    changed = torch.cat([logits[:3], draw(1, (5, 5), 3.0)])
    before, after = simplifier.simplify(logits), simplifier.simplify(changed)
    torch.testing.assert_close(after[:3], before[:3], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[3:], before[3:]).any()
    moved = logits.clone()
    moved[4] += draw(2, (5,), 3.0)
    rows = (simplifier.simplify(moved) - before).abs().amax(dim=1) > 1e-6
    assert rows.tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_the_gradient_of_groups_is_the_sum_of_theirs():
    simplifier, logits = build(5, group=3), draw(0, (6, 5), 3.0)
    whole, halves = (
        torch.autograd.grad(
            sum(simplifier.simplify(rows).square().sum() for rows in parts),
            list(simplifier.parameters()),
        )
        for parts in ([logits], logits.split(3))
    )
    torch.testing.assert_close(whole, halves, rtol=1e-10, atol=1e-12)


def test_a_group_is_of_the_batchs_images_only_and_of_one_at_least():
    with pytest.raises(ValueError, match=r"group: 4 is for axis: batch.*leave group out"):
        SimplifierSettings(axis="classes", group=4)
    for group in (0, -1, 2.5):
        with pytest.raises(ValueError, match="group"):
            SimplifierSettings(group=group)


def test_a_group_is_part_of_a_runs_identity_and_none_is_not():
    assert "group" not in canonical(SimplifierSettings())
    assert canonical(SimplifierSettings(group=64))["group"] == 64
    assert SimplifierSettings.restore(canonical(SimplifierSettings())) == SimplifierSettings()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(5)))
def test_classes_axis_treats_classes_alike(seed, order):
    simplifier = build(5, seed % 100, axis="classes", layer_norm=False, width=3)
    logits = draw(seed, (4, 5), 3.0)
    torch.testing.assert_close(
        simplifier.simplify(logits[:, order]), simplifier.simplify(logits)[:, order]
    )


@pytest.mark.parametrize(("classes", "width", "heads"), [(10, None, 3), (10, 6, 4)])
def test_heads_must_divide_the_width(classes, width, heads):
    with pytest.raises(ValueError, match=rf"width {width or classes}.*{heads} heads"):
        Simplifier(SimplifierSettings(width=width, heads=heads), context_of(classes))


@pytest.mark.parametrize("axis", ["batch", "classes"])
@pytest.mark.parametrize("values", ["projected", "rows"])
def test_gradcheck_by_logits_and_by_parameters(axis, values):
    simplifier = build(4, axis=axis, values=values, heads=2)
    names = [name for name, _ in simplifier.named_parameters()]

    def call(logits: Tensor, *parameters: Tensor) -> Tensor:
        chosen = dict(zip(names, parameters, strict=True))
        outputs = Outputs(logits, (), (), logits)
        batch = Batch(outputs, outputs, torch.zeros(3), torch.arange(3), 1, Draws(0))
        return torch.func.functional_call(simplifier, chosen, (batch,))

    parameters = [p.detach().clone().requires_grad_() for p in simplifier.parameters()]
    assert torch.autograd.gradcheck(call, (draw(0, (3, 4), 3.0).requires_grad_(), *parameters))
