"""A few training steps of a method on a pair of networks, for the checks of `contract`.

They use the real training loop, a few small images, and an untrained teacher.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from skd.data import load_dataset
from skd.losses.methods import needs_teacher, resolve_method, uses_partner
from skd.losses.objective import Losses, Objective, trainable_parameters
from skd.losses.term import Batch
from skd.losses.transformation import Transformation
from skd.models import FeatureNetwork, Outputs, build_model
from skd.models.step_dropout import draw_step_seeds, step_dropouts
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
    """The outcome of a few training steps.

    Attributes:
        training: the training after its last step.
        first_weights: the student's weights before the first step.
        views: the batches of images.
        state_after_first_step: the training's state after its first step.
        gradient_reached: for each parameter, whether it got a gradient other than 0.
        gradient_to_student: for each loss, whether its gradient reaches the student.
    """

    training: Training
    first_weights: dict[str, Tensor]
    views: list[Tensor]
    state_after_first_step: dict[str, Any]
    gradient_reached: dict[str, bool]
    gradient_to_student: dict[str, bool]


class _Stop(Exception):  # noqa: N818  it ends the epoch and is not an error
    pass


def trial_spec(method: MethodSpec, teacher: str, student: str) -> RunSpec:
    """Return the spec of a method's run on two networks, given by name.

    A method that trains a teacher to suit a student trains the first network.
    """
    imported = ImportedTeacher(network=teacher, dataset=TRIAL_DATASET, sha256="made up")
    if uses_partner(method):  # it trains the teacher
        return RunSpec(
            dataset=TRIAL_DATASET,
            network=teacher,
            method=method,
            recipe=TRIAL_RECIPE,
            seed=0,
            partner=student,
        )
    return RunSpec(
        dataset=TRIAL_DATASET,
        network=student,
        teacher=imported if needs_teacher(method) else None,
        method=method,
        recipe=TRIAL_RECIPE,
        seed=0,
    )


def make_teacher(spec: RunSpec) -> FeatureNetwork | None:
    """Return the run's frozen teacher, or ``None`` if the method needs no teacher."""
    if spec.teacher is None:
        return None
    return copy.deepcopy(trial_network(spec.teacher.network))


@cache
def trial_network(name: str) -> FeatureNetwork:
    """Return a frozen, untrained network whose logits differ between images.

    With the initial statistics of BatchNorm, some families' logits would be all 0.
    """
    images = load_dataset(TRIAL_DATASET)
    with seeded(1, "teacher"), torch.no_grad():
        network = build_model(name, images.num_classes)
        draw_step_seeds(step_dropouts(network), torch.Generator().manual_seed(1))
        for _ in range(5):
            network(images.train_images / 255)  # updates BatchNorm's statistics
    return network.eval().requires_grad_(False)


class GuardedTeacher(nn.Module):
    """A teacher whose outputs are NaN where no term declares a need.

    Attributes:
        used: the needs for modules of the teacher that a term has used.
    """

    def __init__(self, network: FeatureNetwork, needs: Collection[str]) -> None:
        super().__init__()
        self.network, self.needs = network, frozenset(needs)
        self.used: set[str] = set()
        self.eval()

    def final_layer(self) -> nn.Module:
        """Return the network's classifier; terms declare its use."""
        self.used.add("teacher_classifier")
        return self.network.final_layer()

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the network's BatchNorm layers before its pre-activations."""
        self.used.add("teacher_batch_norms")
        return self.network.preactivation_norms()

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the network's layers after a stage."""
        self.used.add("teacher_stages")
        return self.network.forward_from(stage, maps)

    def forward_features(self, images: Tensor) -> Outputs:
        """Return the network's outputs, with NaN where they are not needed."""
        outputs = self.network.forward_features(images)
        hidden: dict[str, Any] = {}
        if "teacher_logits" not in self.needs:
            hidden["logits"] = torch.full_like(outputs.logits, math.nan)
        if not self.needs & {"teacher_pooled", "teacher_features"}:
            hidden["pooled"] = torch.full_like(outputs.pooled, math.nan)
        if "teacher_features" not in self.needs:
            for name in ("stages", "preactivations"):
                maps = getattr(outputs, name)
                hidden[name] = tuple(torch.full_like(value, math.nan) for value in maps)
        return replace(outputs, **hidden)


class _StepRecorder:
    """Records batches, states and gradients of a training, and stops it after some steps."""

    def __init__(self, training: Training, steps: int) -> None:
        self._steps, self._read_batch = steps, training.views.batch
        self.views: list[Tensor] = []
        self.states: list[dict[str, Any]] = []
        self.gradient_reached = dict.fromkeys(trial_parameters(training), False)
        self.gradient_to_student: dict[str, bool] = {}
        self._student_weights = trainable_parameters(training.student)
        training.views.batch = self.read_batch
        training.objective.register_forward_hook(self.after_losses)

    def read_batch(self, *arguments: Any) -> Tensor:
        """Read and record a batch, in place of `Views.batch`."""
        self.views.append(self._read_batch(*arguments))
        return self.views[-1]

    def after_losses(self, _objective: nn.Module, _batch: Any, losses: Losses) -> None:
        """Record which losses have a gradient to the student."""
        for name, loss in losses.by_term.items():
            gradients = [None]
            if loss.requires_grad:
                gradients = torch.autograd.grad(
                    loss, self._student_weights, retain_graph=True, allow_unused=True
                )
            self.gradient_to_student[name] = any(map(_is_nonzero, gradients))

    def after_step(self, training: Training) -> None:
        """Record the state and the parameters' gradients; raise `_Stop` after the last step."""
        self.states.append(copy.deepcopy(training.state()))
        for name, parameter in trial_parameters(training).items():
            self.gradient_reached[name] |= _is_nonzero(parameter.grad)
        if len(self.states) == self._steps:
            raise _Stop


def _is_nonzero(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


def run_trial(
    spec: RunSpec,
    teacher: nn.Module | None,
    state: dict[str, Any] | None = None,
    steps: int = TRIAL_STEPS,
    batch_epoch: int | None = None,
    other_targets: bool = False,
) -> MethodTrial:
    """Train some steps of the first epoch, and of later ones if there are more.

    Args:
        spec: the run.
        teacher: its teacher, or ``None``.
        state: a training's state to resume from; by default, the training starts.
        steps: the number of steps.
        batch_epoch: another value of `Batch.epoch` for the terms.
        other_targets: whether all parts of the objective that declare that they do not read
            `Batch.target` get other classes.
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
    if batch_epoch is not None:
        training.objective.register_forward_pre_hook(
            lambda _, arguments: (replace(arguments[0], epoch=batch_epoch),)
        )
    if other_targets:
        _hide_targets(training.objective)
    recorder = _StepRecorder(training, steps)
    with contextlib.suppress(_Stop):
        while True:
            training.run_epoch(recorder.after_step)
    return MethodTrial(
        training,
        first_weights,
        recorder.views,
        recorder.states[0],
        recorder.gradient_reached,
        recorder.gradient_to_student,
    )


def _hide_targets(objective: Objective) -> None:
    """Replace the classes for the parts of an objective that declare that they do not read them."""

    def with_other_targets(batch: Batch) -> Batch:
        classes = batch.student.logits.shape[1]
        return replace(batch, target=(batch.target + 1) % classes)

    for part in (*objective.terms.values(), *objective.transformations.values()):
        if part.reads_target:
            continue
        part.register_forward_pre_hook(lambda _, arguments: (with_other_targets(arguments[0]),))
        if isinstance(part, Transformation):
            part.own_loss = lambda batch, logits, own_loss=part.own_loss: own_loss(
                with_other_targets(batch), logits
            )


@cache
def student_only_trial(student: str) -> MethodTrial:
    """Return the trial of a student without a teacher."""
    return run_trial(
        trial_spec(resolve_method(SheetMethod(name="student"), {}), student, student), None
    )


def trial_parameters(training: Training) -> dict[str, nn.Parameter]:
    """Return the parameters of the student and the objective, trained or not, by name."""
    parts = {"student": training.student, "objective": training.objective}
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def same_final_state(first: MethodTrial, second: MethodTrial) -> bool:
    """Return whether two trials end with the same bits: weights, buffers, the epoch's losses."""
    parts = ("student", "objective", "sums")
    a, b = first.training.state(), second.training.state()
    return all(same_tensors(a[part], b[part]) for part in parts)


def same_weights(first: MethodTrial, second: MethodTrial) -> bool:
    """Return whether two trials end with the same bits in the student and the objective."""
    a, b = first.training.state(), second.training.state()
    return all(same_tensors(a[part], b[part]) for part in ("student", "objective"))


def same_student(first: MethodTrial, second: MethodTrial) -> bool:
    """Return whether two trials end with the same bits in the student."""
    students = (trial.training.student.state_dict() for trial in (first, second))
    return same_tensors(*students)


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Return whether two states have the same bits; NaN equals NaN."""
    return first.keys() == second.keys() and all(
        tensor.shape == second[name].shape
        and torch.allclose(tensor, second[name], rtol=0, atol=0, equal_nan=True)
        for name, tensor in first.items()
    )
