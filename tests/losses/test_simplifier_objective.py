"""The simplifier within an objective: the gradients and the epoch's diagnostics."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.kd import kd_loss
from baselines.simplifier import Simplifier
from skd.losses.objective import Objective
from skd.losses.term import Batch, TermContext
from skd.models.network import Outputs
from skd.randomness import Draws
from skd.study.spec import MethodSpec, SimplifierSpec, TermSpec
from tests.builders.formulas import entropy, kl
from tests.builders.losses import draw
from tests.builders.simplifiers import build, reference

# The simplifier in an objective.


def skd_objective(classes: int, seed: int | None = 0, **changes: Any) -> Objective:
    """0.1·CE + 0.9·KD on the simplified teacher, in float64."""
    terms = [
        TermSpec(term="cross_entropy", version=1, settings={"weight": 0.1}),
        TermSpec(term="kd", version=1, settings={"weight": 0.9, "teacher": "simplified"}),
    ]
    simplifier = SimplifierSpec(version=1, settings=changes)
    nothing = torch.zeros(1, classes)
    context = TermContext(
        classes, torch.arange(classes), 0, *[Outputs(nothing, (), (), nothing)] * 2
    )
    objective = Objective(MethodSpec(terms=terms, simplifier=simplifier), context)
    objective.simplifier = build(classes, seed, **changes)
    objective.begin_epoch(1)
    return objective


def make_batch(count: int = 5, classes: int = 6) -> Batch:
    student = draw(11, (count, classes), 3.0).requires_grad_()
    teacher = draw(12, (count, classes), 3.0)
    target = teacher.argmax(1)  # correct for all but two images
    target[:2] = (target[:2] + 1) % classes
    outputs = [Outputs(x, (), (), x) for x in (student, teacher)]
    return Batch(*outputs, target, torch.arange(count), 1, Draws(0))


def gradients(simplifier: Simplifier) -> dict[str, float]:
    named = simplifier.named_parameters()
    return {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in named}


def test_joint_objective_reaches_every_weight_and_at_first_the_output_alone():
    objective = skd_objective(6)
    objective(make_batch()).total.backward()
    assert min(gradients(objective.simplifier).values()) > 1e-6
    objective = skd_objective(6, seed=None)
    objective(make_batch()).total.backward()
    reached = {name for name, size in gradients(objective.simplifier).items() if size}
    assert reached == {"output.weight"}


def test_joint_gradient_is_that_of_the_distillation_term_alone():
    objective, batch = skd_objective(6), make_batch()
    losses = objective(batch)
    assert set(losses.by_term) == {"cross_entropy", "kd on simplified"}
    losses.total.backward()
    own = build(6)
    (
        0.9 * kd_loss(batch.student.logits.detach(), own.simplify(batch.teacher.logits), 4.0)
    ).backward()
    for name, parameter in own.named_parameters():
        got = objective.simplifier.get_parameter(name).grad
        torch.testing.assert_close(got, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ["joint", "anchored"])
def test_frozen_simplifier_gets_no_gradient_and_no_place_in_the_optimiser(objective):
    module, batch = skd_objective(6, objective=objective, trainable=False), make_batch()
    module(batch).total.backward()
    assert all(p.grad is None for p in module.simplifier.parameters())
    assert batch.student.logits.grad.abs().max() > 0
    assert list(module.parameter_groups()) == []


@pytest.mark.parametrize("objective", ["joint", "anchored"])
def test_student_sees_a_constant_teacher(objective):
    module, batch = skd_objective(6, objective=objective), make_batch()
    module(batch).total.backward()
    student = batch.student.logits.detach().clone().requires_grad_()
    teacher = torch.from_numpy(reference(module.simplifier, batch.teacher.logits))
    entropy = torch.nn.functional.cross_entropy(student, batch.target)
    (0.1 * entropy + 0.9 * kd_loss(student, teacher, 4.0)).backward()
    torch.testing.assert_close(batch.student.logits.grad, student.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("anchor", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_anchored_loss_is_the_two_divergences(anchor, temperature):
    changes = {"objective": "anchored", "anchor": anchor, "temperature": temperature}
    module, batch = skd_objective(6, **changes), make_batch()
    losses = module(batch)
    simplified = reference(module.simplifier, batch.teacher.logits).tolist()
    student, teacher = batch.student.logits.tolist(), batch.teacher.logits.tolist()
    own = kl(simplified, student, temperature) + anchor * kl(teacher, simplified, temperature)
    assert losses.by_term["simplifier"].item() == pytest.approx(own, rel=1e-9)
    weighted = 0.1 * losses.by_term["cross_entropy"] + 0.9 * losses.by_term["kd on simplified"]
    assert losses.total.item() == pytest.approx(weighted.item() + own, rel=1e-9)


def test_anchored_loss_alone_moves_the_simplifier_and_never_the_student():
    module, batch = skd_objective(6, objective="anchored"), make_batch()
    losses = module(batch)
    parameters = list(module.simplifier.parameters())
    by_own = torch.autograd.grad(losses.by_term["simplifier"], parameters, retain_graph=True)
    assert not torch.autograd.grad(
        losses.by_term["simplifier"], batch.student.logits, retain_graph=True, allow_unused=True
    )[0]
    losses.total.backward()
    for parameter, gradient in zip(parameters, by_own, strict=True):
        assert gradient.abs().max() > 1e-6
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_diagnostics_are_means_in_nats_and_percent(temperature):
    module, batch = skd_objective(6, temperature=temperature), make_batch(count=10)
    diagnostics = module(batch).diagnostics
    raw, student = batch.teacher.logits.tolist(), batch.student.logits.tolist()
    simplified = reference(module.simplifier, batch.teacher.logits).tolist()

    def top1(rows: list[list[float]]) -> float:
        places = [row.index(max(row)) for row in rows]
        hits = [place == y for place, y in zip(places, batch.target.tolist(), strict=True)]
        return 100 * sum(hits) / len(hits)

    assert {name: value.item() for name, value in diagnostics.items()} == pytest.approx(
        {
            "entropy_raw": entropy(raw, 1),
            "entropy_softened": entropy(raw, temperature),
            "entropy_simplified": entropy(simplified, temperature),
            "top1_raw": top1(raw),
            "top1_simplified": top1(simplified),
            "kl_softened_simplified": kl(raw, simplified, temperature),
            "kl_simplified_student": kl(simplified, student, temperature),
        },
        rel=1e-6,
        abs=1e-9,
    )
    assert top1(raw) == 80 != top1(simplified)
    assert not any(value.requires_grad for value in diagnostics.values())
