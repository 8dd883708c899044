"""What every method must keep, tried out on every architecture family in a few CPU steps.

`skd check-baseline` and the tests run it, with the real training loop on small images.
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
    make_teacher,
    run_trial,
    same_final_state,
    same_student,
    same_tensors,
    student_only_trial,
    trial_parameters,
    trial_spec,
)
from skd.data import dataset_facts
from skd.expansion.dry_run import fit_problem
from skd.losses.discovery import term_class, term_classes
from skd.losses.methods import SIMPLIFIER, resolve_method
from skd.losses.objective import trainable_parameters
from skd.losses.term import TermSettings
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec, RunSpec

Pairs = tuple[tuple[str, str], ...]

# Teacher and student: each family on each side, with equal and with unequal numbers of stages.
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
    """What came of one check: sound, refused with a reason, or broken with a problem."""

    subject: str
    check: str
    refused: str = ""
    problem: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """Return the verdict's colour and word."""
        if self.problem:
            return "red", "broken"
        return ("yellow", "refused") if self.refused else ("green", "ok")


def check_contract(name: str) -> Iterator[tuple[str, Finding]]:
    """Yield (method, finding) for a term, alone and combined with SKD, or for any method or sum.

    A term that reads logits is combined as SKD's own loss, on simplified logits.

    Raises:
        StudyError: no such method; names the allowed ones.
    """
    methods = [SheetMethod(name=name)]
    if name in term_classes():
        methods.append(with_simplifier(name))
    for method in methods:
        for finding in check_method(resolve_method(method, {})):
            yield method.name, finding
    if name in term_classes():
        for finding in check_term_settings(name):
            yield name, finding


def with_simplifier(name: str) -> SheetMethod:
    """Return a term combined with SKD: on simplified logits if it reads any, else beside SKD."""
    if "teacher_logits" not in term_class(name).needs:
        return SheetMethod(name=f"skd+{name}")
    seen = {"term": name, "teacher": "simplified"}
    return SheetMethod(name=f"skd-{name}", terms=(seen,), simplifier={})


def check_method(method: MethodSpec, pairs: Pairs = TRIAL_PAIRS) -> Iterator[Finding]:
    """Yield what a method keeps and breaks on each pair of networks.

    On each: finite losses, gradients in exactly the modules that train, an untouched teacher, the
    initial student, order and views that every method of the seed has. On the first that fits:
    repeats bit for bit whatever the global generator, resumes bit for bit, reads no more of the
    teacher than it declares, nor the epoch unless it says so, nor compares the batch's images.
    """
    thorough = False
    for teacher, student in pairs:
        spec = trial_spec(method, teacher, student)
        subject = f"{teacher} → {student}"
        if reason := fit_problem(spec, dataset_facts(TRIAL_DATASET)):
            yield Finding(subject, "fits", refused=reason)
            continue
        checks = {"two steps": _two_steps}
        if not thorough:
            checks |= {"repeats": _repeats, "resumes": _resumes, "reads what it needs": _reads}
            checks |= {"says if it reads the epoch": _reads_epoch}
            checks |= {"says if it mixes images": _mixes_images}
            thorough = True
        for what, check in checks.items():
            yield Finding(subject, what, problem=_or_error(check, spec))
    if not thorough:
        yield Finding("all pairs", "fits", problem="it fits none of the pairs")


def check_term_settings(name: str, pairs: Pairs = TRIAL_PAIRS) -> Iterator[Finding]:
    """Yield whether each own setting of a term has a default, a description and an effect."""
    term = term_class(name)
    for field, info in term.Settings.model_fields.items():
        if field in TermSettings.model_fields:
            continue  # the objective heeds these
        problem = refused = ""
        if info.is_required():
            problem = "it has no default"
        elif not info.description:
            problem = "it has no description: Field(default, description=…)"
        elif not list(_other_values(term.Settings, field)):
            refused = "not tried: no other value of it could be guessed"
        elif not _has_effect(name, field, pairs):
            problem = "no other value of it changes what the student learns"
        yield Finding(f"setting {field}", "documented and used", refused, problem)


def _or_error(check: Callable[[RunSpec], str], spec: RunSpec) -> str:
    """Return a check's problem; an error of the baseline's own is one."""
    try:
        return check(spec)
    except Exception as error:
        return "".join(traceback.format_exception(error)).rstrip()


def _two_steps(spec: RunSpec) -> str:
    teacher = make_teacher(spec)
    before = copy.deepcopy(teacher.state_dict()) if teacher else {}
    trial = run_trial(spec, teacher)
    control, training, problems = student_only_trial(spec.network), trial.training, []
    for name, value in training.sums.items():
        if not math.isfinite(value.item()):
            problems.append(f"{name} is not finite")
    trained = {id(parameter) for parameter in trainable_parameters(training.student)}
    trained |= {id(parameter) for parameter in trainable_parameters(training.objective)}
    for name, parameter in trial_parameters(training).items():
        if trial.gradient_reached[name] != (id(parameter) in trained):
            problems.append(f"{name}: {'a' if trial.gradient_reached[name] else 'no'} gradient")
    for name, teaches in trial.teaching.items():
        if not teaches and name != SIMPLIFIER:  # whose own loss is not the student's
            problems.append(f"the loss {name} has no gradient for the student")
    groups = [p for group in training.optimizer.param_groups for p in group["params"]]
    if len(groups) != len(trained) or {id(parameter) for parameter in groups} != trained:
        problems.append("a trainable parameter is not in the optimiser exactly once")
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


def _repeats(spec: RunSpec) -> str:
    plain = run_trial(spec, make_teacher(spec))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        state = torch.get_rng_state()
        again = run_trial(spec, make_teacher(spec))
        drew = not torch.equal(state, torch.get_rng_state())
    if drew:
        return "it draws from torch's global generator, not from batch.draws"
    return "" if same_final_state(plain, again) else "a second run ends with other bits"


def _resumes(spec: RunSpec) -> str:
    plain = run_trial(spec, make_teacher(spec))
    resumed = run_trial(
        spec, make_teacher(spec), plain.state_after_first_step, steps=TRIAL_STEPS - 1
    )
    said = "resumed after the first step, it ends with other bits: is all its state in buffers?"
    return "" if same_final_state(plain, resumed) else said


def _reads_epoch(spec: RunSpec) -> str:
    """A step recorded in one epoch is replayed in those of the same phase."""
    plain = run_trial(spec, make_teacher(spec))
    phase = plain.training.objective.graph_key
    later = next((epoch for epoch in range(2, 1000) if phase(epoch) == phase(1)), None)
    if later is None or same_final_state(
        plain, run_trial(spec, make_teacher(spec), shown_epoch=later)
    ):
        return ""
    return "its loss depends on the batch's epoch: say so by `reads_epoch = True` in the class"


def _mixes_images(spec: RunSpec) -> str:
    """A step's batch is divided among processes, and into parts."""
    return undeclared_mixing(spec, make_teacher(spec))


def _reads(spec: RunSpec) -> str:
    teacher = make_teacher(spec)
    if teacher is None:
        return ""
    needs = {need for term in spec.method.terms for need in term_class(term.term).needs}
    plain, guarded = run_trial(spec, teacher), run_trial(spec, GuardedTeacher(teacher, needs))
    same = same_final_state(plain, guarded)
    return "" if same else f"it reads more of the teacher than its needs: {sorted(needs)}"


def _has_effect(name: str, field: str, pairs: Pairs) -> bool:
    """Return whether some other value of a setting changes what two steps make of a student."""
    default = resolve_method(SheetMethod(name=name), {})
    for teacher, student in pairs:
        plain = trial_spec(default, teacher, student)
        if fit_problem(plain, dataset_facts(TRIAL_DATASET)):
            continue
        expected = run_trial(plain, make_teacher(plain))
        for value in _other_values(term_class(name).Settings, field):
            changed = resolve_method(SheetMethod(name=name, settings={name: {field: value}}), {})
            spec = trial_spec(changed, teacher, student)
            if fit_problem(spec, dataset_facts(TRIAL_DATASET)):
                return True  # it decided whether the pair fits
            if not same_student(expected, run_trial(spec, make_teacher(spec))):
                return True
    return False


def _other_values(settings: type[TermSettings], field: str) -> Iterator[Any]:
    """Yield values that a setting may also have."""
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
