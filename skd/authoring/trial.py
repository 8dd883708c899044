"""A few steps of a method on a pair of networks: what the contract's checks look at.

The training loop is the real one; the images are few and small, the teacher is made up.
"""

from __future__ import annotations

import contextlib
import copy
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from skd.data import load_dataset
from skd.losses.methods import needs_teacher, resolve_method
from skd.losses.objective import Losses, trainable_parameters
from skd.models import FeatureNetwork, Outputs, build_model
from skd.randomness import seeded
from skd.study.sheet import SheetMethod
from skd.study.spec import DatasetSpec, ImportedTeacher, MethodSpec, Recipe, RunSpec
from skd.training.execution import Execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher

TRIAL_DATASET = DatasetSpec(name="digits", train_limit=16)
TRIAL_RECIPE = Recipe(epochs=2, batch_size=8)
TRIAL_STEPS = 2


@dataclass(frozen=True)
class MethodTrial:
    """What a few steps left behind.

    Attributes:
        training: the run, where it stopped.
        first_weights: the student's, before any step.
        views: the batches it saw.
        after_first: the run's state after its first step.
        reached: of each parameter, whether a gradient other than 0 came to it.
        teaching: of each loss, whether its own gradient reaches the student.
    """

    training: Training
    first_weights: dict[str, Tensor]
    views: list[Tensor]
    state_after_first_step: dict[str, Any]
    gradient_reached: dict[str, bool]
    teaching: dict[str, bool]


class _Stop(Exception):  # noqa: N818  a signal, not an error
    pass


def trial_spec(method: MethodSpec, teacher: str, student: str) -> RunSpec:
    """Return the run of a method on two networks, given by name."""
    taught = ImportedTeacher(network=teacher, dataset=TRIAL_DATASET, sha256="made up")
    return RunSpec(
        dataset=TRIAL_DATASET,
        network=student,
        teacher=taught if needs_teacher(method) else None,
        method=method,
        recipe=TRIAL_RECIPE,
        seed=0,
    )


def make_teacher(spec: RunSpec) -> FeatureNetwork | None:
    """Return the run's teacher, frozen, or none where the method needs none."""
    if spec.teacher is None:
        return None
    return copy.deepcopy(made_up_network(spec.teacher.network))


@cache
def made_up_network(name: str) -> FeatureNetwork:
    """Return a frozen network that says something.

    At PyTorch's start some families' logits are all 0.
    """
    images = load_dataset(TRIAL_DATASET)
    with seeded(1, "teacher"), torch.no_grad():
        network = build_model(name, images.num_classes)
        for _ in range(5):
            network(images.train_images / 255)  # moves the batch norms' statistics
    return network.eval().requires_grad_(False)


class GuardedTeacher(nn.Module):
    """A teacher that shows NaN in place of what no term declares to need."""

    def __init__(self, network: FeatureNetwork, needs: set[str]) -> None:
        super().__init__()
        self.network, self.needs = network, needs
        self.eval()

    def forward_features(self, images: Tensor) -> Outputs:
        """Return the network's outputs, hidden where they are not needed."""
        shown = self.network.forward_features(images)
        hidden: dict[str, Any] = {}
        if "teacher_logits" not in self.needs:
            hidden["logits"] = torch.full_like(shown.logits, math.nan)
        if not self.needs & {"teacher_pooled", "teacher_features"}:
            hidden["pooled"] = torch.full_like(shown.pooled, math.nan)
        if "teacher_features" not in self.needs:
            for name in ("stages", "preactivations"):
                maps = getattr(shown, name)
                hidden[name] = tuple(torch.full_like(value, math.nan) for value in maps)
        return replace(shown, **hidden)


def run_trial(
    spec: RunSpec,
    teacher: nn.Module | None,
    state: dict[str, Any] | None = None,
    steps: int = TRIAL_STEPS,
    shown_epoch: int | None = None,
) -> MethodTrial:
    """Train some steps of the first epoch, from a state or from the start.

    The losses see another epoch's number, if one is given.
    """
    training = Training(
        spec,
        DeviceDataset(load_dataset(TRIAL_DATASET), torch.device("cpu")),
        None if teacher is None else LiveTeacher(teacher),
        Execution(device="cpu", threads=torch.get_num_threads()),
    )
    first_weights = copy.deepcopy(training.student.state_dict())
    if state is not None:
        training.load_state(copy.deepcopy(state))
    views: list[Tensor] = []
    states: list[dict[str, Any]] = []
    reached = dict.fromkeys(trial_parameters(training), False)
    make_batch = training.views.batch

    def seen_batch(*arguments: Any) -> Tensor:
        views.append(make_batch(*arguments))
        return views[-1]

    def after_step(training: Training) -> None:
        states.append(copy.deepcopy(training.state()))
        for name, parameter in trial_parameters(training).items():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.any())
        if len(states) == steps:
            raise _Stop

    def after_losses(_objective: nn.Module, _batch: Any, losses: Losses) -> None:
        weights = trainable_parameters(training.student)
        for name, value in losses.parts.items():
            found = [None]
            if value.requires_grad:
                found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            teaching[name] = any(slope is not None and bool(slope.any()) for slope in found)

    if shown_epoch is not None:
        training.objective.register_forward_pre_hook(
            lambda _, given: (replace(given[0], epoch=shown_epoch),)
        )
    training.views.batch = seen_batch
    teaching: dict[str, bool] = {}
    training.objective.register_forward_hook(after_losses)
    with contextlib.suppress(_Stop):
        training.run_epoch(after_step)
    return MethodTrial(training, first_weights, views, states[0], reached, teaching)


@cache
def student_only_trial(student: str) -> MethodTrial:
    """Return the trial of a student without a teacher."""
    return run_trial(
        trial_spec(resolve_method(SheetMethod(name="student"), {}), student, student), None
    )


def trial_parameters(training: Training) -> dict[str, nn.Parameter]:
    """Return the student's and the losses' parameters, trained or not, by name."""
    parts = {"student": training.student, "objective": training.objective}
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def same_final_state(one: MethodTrial, other: MethodTrial) -> bool:
    """Return whether two trials end with the same bits: weights, buffers, the epoch's losses."""
    parts = ("student", "objective", "sums")
    a, b = one.training.state(), other.training.state()
    return all(same_tensors(a[part], b[part]) for part in parts)


def same_student(one: MethodTrial, other: MethodTrial) -> bool:
    """Return whether two trials end with the same bits in the student."""
    students = (trial.training.student.state_dict() for trial in (one, other))
    return same_tensors(*students)


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two states have the same bits; NaN equals NaN."""
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], rtol=0, atol=0, equal_nan=True) for name in one
    )
