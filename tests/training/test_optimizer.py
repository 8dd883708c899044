"""The optimiser's parameter groups, weight decay and the learning rate's schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import skd.losses.objective
from skd.losses.discovery import term_class
from skd.losses.objective import Objective
from skd.study.spec import MethodSpec, Recipe, SimplifierSpec, TermSpec
from skd.training.optimizer import learning_rate, make_optimizer, set_learning_rate
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
