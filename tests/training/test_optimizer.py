"""The optimiser's parameter groups, weight decay and the learning rate's schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import skd.losses.objective
from skd.losses.discovery import term_class
from skd.losses.objective import Objective
from skd.study.spec import MethodSpec, Recipe, SimplifierSpec, TermSpec
from skd.training.checkpoint import ForeignStateError
from skd.training.optimizer import (
    learning_rate,
    load_optimizer_state,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from tests.builders.objectives import CLASSES, Learned, chosen, make_objective


def learned_objective(monkeypatch: pytest.MonkeyPatch, **simplifier: Any) -> Objective:
    known = {"learned": Learned}
    monkeypatch.setattr(skd.losses.objective, "term_class", lambda n: known.get(n) or term_class(n))
    terms = [
        TermSpec(term=name, version=1, settings={"teacher": teacher})
        for name, teacher in (("learned", "raw"), ("learned", "raw"), ("kd", "simplified"))
    ]
    return make_objective(
        MethodSpec(terms=terms, simplifier=SimplifierSpec(version=1, settings=simplifier))
    )


def make_student() -> nn.Module:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten())
    student.append(nn.Linear(4, CLASSES))
    student.register_parameter("unused", nn.Parameter(torch.ones(2), requires_grad=False))
    return student.double()


def test_parameter_groups_carry_their_multipliers(monkeypatch):
    objective = learned_objective(monkeypatch, learning_rate_multiplier=0.25)
    groups = list(objective.parameter_groups())
    assert [(len(group.parameters), group.learning_rate_multiplier) for group in groups] == [
        (4, 1.0),
        (6, 0.25),
    ]
    (group,) = make_objective(chosen("skd+kd")).parameter_groups()
    assert group.learning_rate_multiplier == 0.00001
    assert list(make_objective(chosen("kd")).parameter_groups()) == []
    frozen = {"like": "skd", "simplifier": {"trainable": False}}
    assert list(make_objective(chosen(frozen)).parameter_groups()) == []


def test_each_trainable_parameter_is_in_the_optimiser_once_with_weight_decay(monkeypatch):
    student, objective = make_student(), learned_objective(monkeypatch)
    recipe = Recipe(momentum=0.8, nesterov=True, weight_decay=0.02)
    optimizer = make_optimizer(recipe, student, objective)
    optimized = [id(p) for group in optimizer.param_groups for p in group["params"]]
    everything = [*student.parameters(), *objective.parameters()]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == {id(p) for p in everything if p.requires_grad}
    assert len(everything) - len(optimized) == 3  # `unused`, and `fixed` of either learned term
    for group in optimizer.param_groups:
        assert (group["weight_decay"], group["momentum"]) == (0.02, 0.8)
        assert (group["nesterov"], group["dampening"]) == (True, 0)


def test_a_step_decays_every_parameter_by_its_own_rate(monkeypatch):
    student = make_student()
    objective = learned_objective(monkeypatch, learning_rate_multiplier=0.25)
    recipe = Recipe(weight_decay=0.01)
    optimizer = make_optimizer(recipe, student, objective)
    set_learning_rate(optimizer, 0.2)
    named = [*student.named_parameters(), *objective.named_parameters()]
    expected = []
    for name, parameter in named:
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        rate = 0.2 * (0.25 if name.startswith("simplifier.") else 1) * parameter.requires_grad
        expected.append(parameter.detach() * (1 - rate * 0.01))
    optimizer.step()
    for (name, parameter), value in zip(named, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-14, atol=0, msg=name)


def test_default_schedule_is_the_common_recipes():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size) == (240, 64)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, False, 5e-4)
    optimizer = make_optimizer(recipe, make_student(), make_objective(chosen("skd")))
    for epoch in range(1, 241):
        rate = 0.05 if epoch <= 150 else 0.005 if epoch <= 180 else 0.0005
        rate = 0.00005 if epoch > 210 else rate
        assert learning_rate(recipe, epoch) == pytest.approx(rate, rel=1e-12)
        set_learning_rate(optimizer, learning_rate(recipe, epoch))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rate, rate * 0.00001], rel=1e-12)


def test_schedule_of_another_recipe():
    recipe = Recipe(learning_rate=1.0, milestones=(2, 3), learning_rate_decay=0.5)
    assert [learning_rate(recipe, epoch) for epoch in range(1, 6)] == [1, 1, 0.5, 0.25, 0.25]
    assert learning_rate(Recipe(milestones=()), 240) == 0.05


# AdamW.


@pytest.mark.parametrize("fused", [False, True])
def test_adamw_is_the_formula_from_the_first_step_on(monkeypatch, fused: bool) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, with each group's rate and decay."""
    student = make_student()
    objective = learned_objective(monkeypatch, learning_rate_multiplier=0.25, weight_decay=0.0)
    recipe = Recipe(optimizer="adamw", betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    optimizer = make_optimizer(recipe, student, objective, fused=fused)
    weights = [student[0].weight, next(objective.get_submodule("simplifier").parameters())]
    expected = [weight.detach().clone() for weight in weights]
    means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for step, rate in enumerate((0.05, 0.05, 0.005), start=1):
        set_learning_rate(optimizer, rate)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn(
                    parameter.shape, generator=generator, dtype=torch.float64
                ).to(parameter.dtype)
        for i, (weight, multiplier, decay) in enumerate(
            zip(weights, (1, 0.25), (0.1, 0.0), strict=True)
        ):
            own_rate = rate * multiplier
            if fused:  # the device's learning rate is a float32
                own_rate = torch.tensor(own_rate).to(expected[i].dtype)
            means[i] = 0.8 * means[i] + 0.2 * weight.grad
            squares[i] = 0.95 * squares[i] + 0.05 * weight.grad**2
            mean, square = means[i] / (1 - 0.8**step), squares[i] / (1 - 0.95**step)
            expected[i] -= own_rate * decay * expected[i]
            expected[i] -= own_rate * mean / (square.sqrt() + 1e-3)
        optimizer.step()
        for weight, value in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight.detach(), value)


def test_adamw_has_all_tensors_of_its_state_before_the_first_step() -> None:
    recipe = Recipe(optimizer="adamw")
    student, objective = make_student(), make_objective(chosen("skd"))
    optimizer = make_optimizer(recipe, student, objective, fused=True)
    before = optimizer_tensors(optimizer)
    assert {name.split()[0] for name in before} == {"step", "exp_avg", "exp_avg_sq"}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = optimizer_tensors(optimizer)
    assert {name: id(tensor) for name, tensor in after.items()} == {
        name: id(tensor) for name, tensor in before.items()
    }
    assert all((tensor != 0).all() for tensor in after.values())


def test_a_state_of_the_other_optimiser_is_refused() -> None:
    student, objective = make_student(), make_objective(chosen("kd"))
    sgd, adamw = (
        make_optimizer(Recipe(optimizer=name), student, objective) for name in ("sgd", "adamw")
    )
    with pytest.raises(ForeignStateError, match="is sgd, and the recipe of this run has adamw"):
        load_optimizer_state(adamw, sgd.state_dict())
    with pytest.raises(ForeignStateError, match="is adamw, and the recipe of this run has sgd"):
        load_optimizer_state(sgd, adamw.state_dict())
    load_optimizer_state(adamw, adamw.state_dict())


# Cosine and warm-up.

cosines = st.integers(2, 300).flatmap(
    lambda epochs: st.builds(
        Recipe,
        epochs=st.just(epochs),
        schedule=st.just("cosine"),
        learning_rate=st.floats(1e-3, 1),
        minimum_learning_rate=st.floats(0, 1e-3),
        warmup_epochs=st.integers(0, epochs - 1),
    )
)


@given(recipe=cosines)
def test_a_cosine_starts_at_the_rate_and_falls_to_one_step_before_its_minimum(recipe) -> None:
    base, minimum, warmup = recipe.learning_rate, recipe.minimum_learning_rate, recipe.warmup_epochs
    rates = [learning_rate(recipe, epoch) for epoch in range(1, recipe.epochs + 1)]
    risen, cosine = rates[:warmup], rates[warmup:]
    assert risen == pytest.approx([base * e / warmup for e in range(1, warmup + 1)])
    assert cosine[0] == pytest.approx(base)
    assert cosine == sorted(cosine, reverse=True)
    # 1 - cos(x) = 2 sin(x/2)^2: the last rate by another formula
    last = minimum + (base - minimum) * math.sin(math.pi / 2 / len(cosine)) ** 2
    assert cosine[-1] == pytest.approx(last)


def test_the_cosine_is_pytorchs() -> None:
    recipe = Recipe(
        epochs=30, schedule="cosine", learning_rate=0.2, minimum_learning_rate=0.01, warmup_epochs=5
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.01)
    for epoch in range(6, 31):
        assert learning_rate(recipe, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_steps_warm_up_to_the_rate_and_decay_after() -> None:
    recipe = Recipe(epochs=6, learning_rate=1.0, warmup_epochs=4, milestones=(5,))
    rates = [learning_rate(recipe, epoch) for epoch in range(1, 7)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1])
