"""Checks that every method must pass, on every architecture family, in a few CPU steps.

`skd check-baseline` and the tests run them, with the real training loop on small images.
"""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from pydantic import ValidationError

from skd.authoring.image_mixing import undeclared_mixing
from skd.authoring.trial import (
    TRIAL_DATASET,
    TRIAL_STEPS,
    GuardedTeacher,
    MethodTrial,
    make_teacher,
    run_trial,
    same_final_state,
    same_student,
    same_tensors,
    same_weights,
    student_only_trial,
    trial_parameters,
    trial_spec,
)
from skd.data import dataset_facts
from skd.expansion.dry_run import fit_problem
from skd.losses.discovery import term_class, term_classes
from skd.losses.methods import resolve_method
from skd.losses.objective import trainable_parameters
from skd.losses.term import TermSettings
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec, RunSpec

Pairs = tuple[tuple[str, str], ...]

# (teacher, student): each family as both, with equal and with different numbers of stages.
TRIAL_PAIRS = (
    ("wrn_16_1", "resnet8"),
    ("resnet8", "ShuffleV1"),
    ("ShuffleV1", "ShuffleV2"),
    ("ShuffleV2", "wrn_16_1"),
    ("ResNet50", "vgg8"),
    ("vgg8", "MobileNetV2"),
    ("MobileNetV2", "ResNet50"),
    ("vgg8", "resnet8"),
)


@dataclass(frozen=True)
class Finding:
    """The result of a check: passed, refused for a reason, or failed with a problem."""

    subject: str
    check: str
    refused: str = ""
    problem: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """The colour and the word of the result."""
        if self.problem:
            return "red", "broken"
        return ("yellow", "refused") if self.refused else ("green", "ok")


def check_contract(name: str) -> Iterator[tuple[str, Finding]]:
    """Yield (method, finding) for a term, alone and combined with SKD, or for any method or sum.

    A term that reads logits is combined with SKD as its loss on simplified logits. A term that
    trains a teacher to suit a student is not combined: a teacher has no teacher.

    Raises:
        StudyError: there is no such method; names the allowed ones.
    """
    methods = [SheetMethod(name=name)]
    if name in term_classes() and not term_class(name).uses_partner:
        methods.append(with_simplifier(name))
    for method in methods:
        for finding in check_method(resolve_method(method, {})):
            yield method.name, finding
    if name in term_classes():
        for finding in check_term_settings(name):
            yield name, finding


def with_simplifier(name: str) -> SheetMethod:
    """Return a term combined with SKD: on simplified logits if it reads logits, else in a sum."""
    if "teacher_logits" not in term_class(name).needs:
        return SheetMethod(name=f"skd+{name}")
    term = {"term": name, "teacher": "simplified"}
    return SheetMethod(name=f"skd-{name}", terms=(term,))


def check_method(method: MethodSpec, pairs: Pairs = TRIAL_PAIRS) -> Iterator[Finding]:
    """Yield the results of all checks of a method, for each pair of networks.

    On each pair: losses are finite; exactly the trainable modules get gradients; the teacher does
    not change; and the initial student, the order and the views are those of every method with the
    seed. On the first pair that fits: a repeated and a resumed run end with the same bits, whatever
    the state of the global generator; and the terms declare what they read of the teacher, whether
    they read the epoch, the classes of images, and whether they compare the images of a batch.
    """
    checked_all = False
    for teacher, student in pairs:
        spec = trial_spec(method, teacher, student)
        subject = f"{teacher} → {student}"
        if reason := fit_problem(spec, dataset_facts(TRIAL_DATASET)):
            yield Finding(subject, "fits", refused=reason)
            continue
        checks = {"two steps": _two_steps_problem}
        if not checked_all:
            checks |= {
                "repeats": _repetition_problem,
                "resumes": _resuming_problem,
                "declares its needs": _needs_problem,
                "declares reads_epoch": _epoch_problem,
                "declares mixes_images": _mixing_problem,
                "declares reads_target": _target_problem,
            }
            checked_all = True
        for check, find_problem in checks.items():
            yield Finding(subject, check, problem=_problem_or_error(find_problem, spec))
    if not checked_all:
        yield Finding("all pairs", "fits", problem="it fits none of the pairs")


def check_term_settings(name: str, pairs: Pairs = TRIAL_PAIRS) -> Iterator[Finding]:
    """Check that each setting of a term itself has a default, a description and an effect."""
    term = term_class(name)
    for field, info in term.Settings.model_fields.items():
        if field in TermSettings.model_fields:
            continue  # the objective uses these
        problem = refused = ""
        if info.is_required():
            problem = "it has no default"
        elif not info.description:
            problem = "it has no description: use Field(default, description=…)"
        elif not list(_other_values(term.Settings, field)):
            refused = "not tried: no other allowed value could be guessed"
        elif not _has_effect(name, field, pairs):
            problem = "no other value changes what the student learns"
        yield Finding(f"setting {field}", "documented and used", refused, problem)


def _problem_or_error(find_problem: Callable[[RunSpec], str], spec: RunSpec) -> str:
    """Return the problem that a check finds, or the traceback of an error that it raises."""
    try:
        return find_problem(spec)
    except Exception as error:
        return "".join(traceback.format_exception(error)).rstrip()


def _two_steps_problem(spec: RunSpec) -> str:
    """Check losses, gradients, optimiser, teacher and the student's start in two steps."""
    teacher = make_teacher(spec)
    before = copy.deepcopy(teacher.state_dict()) if teacher else {}
    trial = run_trial(spec, teacher)
    control = student_only_trial(spec.network)
    problems = [
        f"{name} is not finite"
        for name, value in trial.training.sums.items()
        if not math.isfinite(value.item())
    ]
    problems += _gradient_problems(trial)
    if teacher is not None:
        if not same_tensors(before, teacher.state_dict()) or teacher.training:
            problems.append("the teacher was changed")
        if any(parameter.grad is not None for parameter in teacher.parameters()):
            problems.append("a gradient reached the teacher")
    if not same_tensors(trial.first_weights, control.first_weights):
        problems.append("the student does not start as the student alone does")
    if not all(torch.equal(a, b) for a, b in zip(trial.views, control.views, strict=True)):
        problems.append("it sees other images than the student alone")
    return "; ".join(problems)


def _gradient_problems(trial: MethodTrial) -> list[str]:
    """Check that gradients reach exactly the trainable parameters, which the optimiser has."""
    training, problems = trial.training, []
    trainable = {id(parameter) for parameter in trainable_parameters(training.student)}
    trainable |= {id(parameter) for parameter in trainable_parameters(training.objective)}
    for name, parameter in trial_parameters(training).items():
        if trial.gradient_reached[name] != (id(parameter) in trainable):
            problems.append(f"{name}: {'a' if trial.gradient_reached[name] else 'no'} gradient")
    for name, has_gradient in trial.gradient_to_student.items():
        if not has_gradient and name not in training.objective.transformations:
            problems.append(f"the loss {name} has no gradient for the student")
    groups = [p for group in training.optimizer.param_groups for p in group["params"]]
    if len(groups) != len(trainable) or {id(parameter) for parameter in groups} != trainable:
        problems.append("a trainable parameter is not in the optimiser exactly once")
    return problems


def _repetition_problem(spec: RunSpec) -> str:
    """Check that a run does not use the global generator, and has the same bits when repeated."""
    first = run_trial(spec, make_teacher(spec))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        state = torch.get_rng_state()
        second = run_trial(spec, make_teacher(spec))
        drew_globally = not torch.equal(state, torch.get_rng_state())
    if drew_globally:
        return "it draws from torch's global generator, not from batch.draws"
    return "" if same_final_state(first, second) else "a second run ends with other bits"


def _resuming_problem(spec: RunSpec) -> str:
    """Check that a run that is resumed after its first step ends with the same bits."""
    uninterrupted = run_trial(spec, make_teacher(spec))
    resumed = run_trial(
        spec, make_teacher(spec), uninterrupted.state_after_first_step, steps=TRIAL_STEPS - 1
    )
    if same_final_state(uninterrupted, resumed):
        return ""
    return "resumed after the first step, it ends with other bits: is all its state in buffers?"


def _epoch_problem(spec: RunSpec) -> str:
    """Check `reads_epoch`: a recorded step is replayed in all epochs with the same graph key."""
    first = run_trial(spec, make_teacher(spec))
    graph_key = first.training.objective.graph_key
    later = next((epoch for epoch in range(2, 1000) if graph_key(epoch) == graph_key(1)), None)
    if later is None or same_final_state(
        first, run_trial(spec, make_teacher(spec), batch_epoch=later)
    ):
        return ""
    return "its loss depends on the batch's epoch: declare `reads_epoch = True` in the class"


def _mixing_problem(spec: RunSpec) -> str:
    """Check `mixes_images`: batches are divided among processes and into parts."""
    return undeclared_mixing(spec, make_teacher(spec))


def _target_problem(spec: RunSpec) -> str:
    """Check `reads_target`: a recipe that mixes images refuses what reads their classes."""
    first = run_trial(spec, make_teacher(spec))
    if same_weights(first, run_trial(spec, make_teacher(spec), other_targets=True)):
        return ""
    return "its loss depends on the batch's target: do not declare `reads_target = False`"


def _needs_problem(spec: RunSpec) -> str:
    """Check that the terms declare everything that they read of the teacher."""
    teacher = make_teacher(spec)
    if teacher is None:
        return ""
    needs = {need for term in spec.method.terms for need in term_class(term.term).needs}
    plain, guarded = run_trial(spec, teacher), run_trial(spec, GuardedTeacher(teacher, needs))
    if same_final_state(plain, guarded):
        return ""
    return f"it reads more of the teacher than its needs: {sorted(needs)}"


def _has_effect(name: str, field: str, pairs: Pairs) -> bool:
    """Return whether another value of a setting changes the student within two epochs."""
    default = resolve_method(SheetMethod(name=name), {})
    for teacher, student in pairs:
        plain = trial_spec(default, teacher, student)
        if fit_problem(plain, dataset_facts(TRIAL_DATASET)):
            continue
        changed = [
            resolve_method(SheetMethod(name=name, settings={name: {field: value}}), {})
            for value in _other_values(term_class(name).Settings, field)
        ]
        specs = [trial_spec(method, teacher, student) for method in changed]
        if any(fit_problem(spec, dataset_facts(TRIAL_DATASET)) for spec in specs):
            return True  # the setting decides whether the pair fits
        for steps in (TRIAL_STEPS, 2 * TRIAL_STEPS):  # in the first epoch, and in the second one
            expected = run_trial(plain, make_teacher(plain), steps=steps)
            for spec in specs:
                if not same_student(expected, run_trial(spec, make_teacher(spec), steps=steps)):
                    return True
    return False


def _other_values(settings: type[TermSettings], field: str) -> Iterator[Any]:
    """Yield allowed values of a setting other than its default."""
    info = settings.model_fields[field]
    default = info.default
    if isinstance(default, bool):
        candidates: list[Any] = [not default]
    elif isinstance(default, int | float):
        candidates = [default / 2, default * 2, default + 1, 1, 0]
        candidates = [type(default)(value) for value in candidates]
    elif isinstance(default, tuple):
        candidates = [default[:-1], default[1:]]
    else:  # a choice, or an optional value
        candidates = [*get_args(info.annotation), 1, 2, 0.5]
    for value in candidates:
        if value == default:
            continue
        try:
            settings.model_validate({field: value})
        except ValidationError:
            continue
        yield value
