"""Outputs, batches and terms made by hand, for tests of losses against references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from skd.losses.discovery import term_class, transformation_class
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import Batch, Term, TermContext
from skd.losses.transformation import Transformation
from skd.models.network import FeatureNetwork, Outputs
from skd.randomness import Draws, seeded

Shape = tuple[int, int, int]


def draw(seed: int, shape: Sequence[int], scale: float = 1.0) -> Tensor:
    """Return normal float64 numbers."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, tuple(shape)))


def slopes(function: Callable[[Any], float], at: Any, step: float = 1e-6) -> Any:
    """Return a function's derivatives by each number of an array or tensor: central differences."""
    values = np.asarray(at)
    derivatives = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        ends = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            ends.append(function(torch.from_numpy(moved) if torch.is_tensor(at) else moved))
        derivatives[place] = (ends[0] - ends[1]) / (2 * step)
    return torch.from_numpy(derivatives) if torch.is_tensor(at) else derivatives


def assert_follows(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    reference: Callable[[Any, Any], float],
    student: Tensor,
    teacher: Tensor,
) -> None:
    """Assert that a loss and its gradients by both sides are those of a reference on arrays."""
    student.requires_grad_()
    teacher.requires_grad_()
    loss = loss_of(student, teacher)
    loss.backward()
    s, t = student.detach().numpy(), teacher.detach().numpy()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(s, t), rel=1e-12)
    by_student = slopes(lambda x: reference(x, t), s)
    by_teacher = slopes(lambda x: reference(s, x), t)
    np.testing.assert_allclose(student.grad, by_student, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(teacher.grad, by_teacher, rtol=1e-6, atol=1e-9)


def assert_loss_and_gradients(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    student: Tensor,
    teacher: Tensor,
    expected: tuple[float, Tensor, Tensor],
    rtol: float,
    atol: float,
) -> None:
    """Assert that a loss and its gradients by both sides are as expected, in float64."""
    value, by_student, by_teacher = expected
    student, teacher = (side.clone().requires_grad_() for side in (student, teacher))
    loss = loss_of(student, teacher)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=rtol, abs=atol)
    torch.testing.assert_close(student.grad.double(), by_student, rtol=rtol, atol=atol)
    torch.testing.assert_close(teacher.grad.double(), by_teacher, rtol=rtol, atol=atol)


def make_outputs(
    seed: int,
    count: int,
    maps: Sequence[Shape] = (),
    classes: int = 5,
    width: int | None = None,
    preactivations: bool = True,
) -> Outputs:
    """Return leaves: logits (B, classes), maps (B, C, H, W), the pooled feature (B, width).

    Everything takes a gradient. Pre-activations are independent of the stages (not the stem's).
    """

    def leaf(offset: int, *shape: int) -> Tensor:
        return draw(1000 * seed + offset, (count, *shape)).requires_grad_()

    stages = tuple(leaf(index, *shape) for index, shape in enumerate(maps))
    before = [leaf(100 + index, *shape) for index, shape in enumerate(maps)]
    pooled = leaf(200, width or (maps[-1][0] if maps else 7))
    raw = (*stages[:1], *before[1:]) if preactivations else ()
    return Outputs(leaf(300, classes), stages, raw, pooled)


def make_term(
    name: str,
    student: Outputs,
    teacher: Outputs,
    labels: Tensor | None = None,
    epoch: int = 1,
    teacher_network: FeatureNetwork | None = None,
    **settings: Any,
) -> Term:
    """Return a term of baselines/ in float64, for outputs of these shapes, in an epoch."""
    term = term_class(name)
    classes = student.logits.shape[1]
    labels = torch.arange(10 * classes) % classes if labels is None else labels
    modules = teacher_network and TeacherModules(teacher_network)
    context = TermContext(classes, labels, 0, student, teacher, teacher_modules=modules)
    with seeded(0, name):
        module = term(term.Settings(**settings), context.restrict(term.needs)).double()
    module.begin_epoch(epoch)
    return module


def make_transformation(
    name: str, student: Outputs, teacher: Outputs, **settings: Any
) -> Transformation:
    """Return a transformation of baselines/ in float64, for outputs of these shapes, in epoch 1."""
    rule = transformation_class(name)
    classes = student.logits.shape[1]
    context = TermContext(classes, torch.arange(10 * classes) % classes, 0, student, teacher)
    with seeded(0, name):
        module = rule(rule.Settings(**settings), context).double()
    module.begin_epoch(1)
    return module


def make_batch(
    student: Outputs,
    teacher: Outputs,
    target: Tensor | None = None,
    epoch: int = 1,
    indices: Tensor | None = None,
) -> Batch:
    """Return a batch of these outputs; by default of classes 0, 1, … and images 0, 1, …"""
    count, classes = student.logits.shape
    places = torch.arange(count)
    target = places % classes if target is None else target
    indices = places if indices is None else indices
    return Batch(student, teacher, target, indices, epoch, Draws(0))
