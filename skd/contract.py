"""What every method must keep, tried out on every architecture family in a few CPU steps.

`skd check-baseline` and the tests run it, with the real training loop on small images.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from skd.data import facts, load
from skd.fit import misfit
from skd.methods import needs_teacher, resolve
from skd.models import FeatureNetwork, Outputs, build_model
from skd.objective import trainable
from skd.randomness import seeded
from skd.sheet import Method
from skd.spec import DatasetSpec, ImportedTeacher, MethodSpec, Recipe, RunSpec
from skd.terms import Term, TermSettings, term_class
from skd.training.loop import Training

# Teacher and student: each family on each side, with equal and with unequal numbers of stages.
PAIRS = (
    ("wrn_16_1", "resnet8"),
    ("resnet8", "ShuffleV1"),
    ("ShuffleV1", "ShuffleV2"),
    ("ShuffleV2", "wrn_16_1"),
    ("ResNet50", "vgg8"),
    ("vgg8", "MobileNetV2"),
    ("MobileNetV2", "ResNet50"),
    ("vgg8", "resnet8"),
)
DATASET = DatasetSpec(name="digits", train_limit=16)
RECIPE = Recipe(epochs=2, batch_size=8)
STEPS = 2


@dataclass(frozen=True)
class Finding:
    """What came of one check: sound, refused with a reason, or broken with a problem."""

    subject: str
    check: str
    refused: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Trial:
    """What a few steps left behind."""

    training: Training
    first_weights: dict[str, Tensor]
    views: list[Tensor]
    after_first: dict[str, Any]
    reached: dict[str, bool]


class _Stop(Exception):  # noqa: N818  a signal, not an error
    pass


def check_method(method: MethodSpec, pairs: tuple[tuple[str, str], ...] = PAIRS) -> list[Finding]:
    """Return what a method keeps and breaks on each pair of networks.

    On each: finite losses, gradients in exactly the modules that train, an untouched teacher, the
    initial student, order and views that every method of the seed has. On the first that fits:
    repeats bit for bit whatever the global generator, resumes bit for bit, reads no more of the
    teacher than it declares.
    """
    findings, thorough = [], False
    for teacher, student in pairs:
        spec = _run(method, teacher, student)
        subject = f"{teacher} → {student}"
        if reason := misfit(spec, facts(DATASET)):
            findings.append(Finding(subject, "fits", refused=reason))
            continue
        checks = {"two steps": _two_steps}
        if not thorough:
            checks |= {"repeats": _repeats, "resumes": _resumes, "reads what it needs": _reads}
            thorough = True
        findings += [Finding(subject, what, problem=check(spec)) for what, check in checks.items()]
    if not thorough:
        findings.append(Finding("all pairs", "fits", problem="it fits none of the pairs"))
    return findings


def check_settings(name: str, pairs: tuple[tuple[str, str], ...] = PAIRS) -> list[Finding]:
    """Return whether each setting of a term has a default, a description and an effect."""
    term, findings = term_class(name), []
    for field, info in term.Settings.model_fields.items():
        problem = ""
        if info.is_required():
            problem = "it has no default"
        elif not (info.description or field in TermSettings.model_fields):
            problem = "it has no description: Field(default, description=…)"
        elif field in _own_settings(term) and not _has_effect(name, field, pairs):
            problem = "no other value of it changes a run"
        findings.append(Finding(f"setting {field}", "documented and used", problem=problem))
    return findings


def _own_settings(term: type[Term]) -> list[str]:
    """Return the settings that the term itself must heed; the objective heeds the others."""
    return [name for name in term.Settings.model_fields if name not in TermSettings.model_fields]


def _run(method: MethodSpec, teacher: str, student: str) -> RunSpec:
    taught = ImportedTeacher(network=teacher, dataset=DATASET, sha256="made up")
    return RunSpec(
        dataset=DATASET,
        network=student,
        teacher=taught if needs_teacher(method) else None,
        method=method,
        recipe=RECIPE,
        seed=0,
    )


def _teacher(spec: RunSpec) -> FeatureNetwork | None:
    if spec.teacher is None:
        return None
    network = copy.deepcopy(_made_up_teacher(spec.teacher.network))
    return network.eval().requires_grad_(False)


@cache
def _made_up_teacher(name: str) -> FeatureNetwork:
    """Return a network that says something: at PyTorch's start some families' logits are all 0."""
    images = load(DATASET)
    with seeded(1, "teacher"), torch.no_grad():
        network = build_model(name, images.num_classes)
        for _ in range(5):
            network(images.train_images / 255)  # moves the batch norms' statistics
    return network


@cache
def _alone(student: str) -> Trial:
    return _train(_run(resolve(Method(name="student"), {}), student, student), None)


def _train(
    spec: RunSpec,
    teacher: nn.Module | None,
    state: dict[str, Any] | None = None,
    steps: int = STEPS,
) -> Trial:
    """Train some steps of the first epoch, from a state or from the start."""
    training = Training(spec, load(DATASET), teacher, torch.device("cpu"))
    first_weights = copy.deepcopy(training.student.state_dict())
    if state is not None:
        training.load_state(copy.deepcopy(state))
    views: list[Tensor] = []
    states: list[dict[str, Any]] = []
    reached = dict.fromkeys(_named(training), False)
    make_batch = training.views.batch

    def seen_batch(*arguments: Any) -> Tensor:
        views.append(make_batch(*arguments))
        return views[-1]

    def after_step(training: Training) -> None:
        states.append(copy.deepcopy(training.state()))
        for name, parameter in _named(training).items():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.any())
        if len(states) == steps:
            raise _Stop

    training.views.batch = seen_batch
    with contextlib.suppress(_Stop):
        training.run_epoch(after_step)
    return Trial(training, first_weights, views, states[0], reached)


def _named(training: Training) -> dict[str, nn.Parameter]:
    parts = {"student": training.student, "objective": training.objective}
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def _two_steps(spec: RunSpec) -> str:
    teacher = _teacher(spec)
    before = copy.deepcopy(teacher.state_dict()) if teacher else {}
    trial = _train(spec, teacher)
    alone, training, problems = _alone(spec.network), trial.training, []
    for name, value in training.sums.items():
        if not math.isfinite(value.item()):
            problems.append(f"{name} is not finite")
    trained = {id(parameter) for parameter in trainable(training.student)}
    trained |= {id(parameter) for parameter in trainable(training.objective)}
    for name, parameter in _named(training).items():
        if trial.reached[name] != (id(parameter) in trained):
            problems.append(f"{name}: {'a' if trial.reached[name] else 'no'} gradient")
    groups = [p for group in training.optimizer.param_groups for p in group["params"]]
    if len(groups) != len(trained) or {id(parameter) for parameter in groups} != trained:
        problems.append("a trainable parameter is not in the optimiser exactly once")
    if teacher is not None:
        if not _equal(before, teacher.state_dict()) or teacher.training:
            problems.append("the teacher was changed")
        if any(parameter.grad is not None for parameter in teacher.parameters()):
            problems.append("a gradient reached the teacher")
    if not _equal(trial.first_weights, alone.first_weights):
        problems.append("the student does not start as the student alone does")
    if not all(torch.equal(a, b) for a, b in zip(trial.views, alone.views, strict=True)):
        problems.append("it sees other images than the student alone")
    return "; ".join(problems)


def _repeats(spec: RunSpec) -> str:
    plain = _train(spec, _teacher(spec))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        state = torch.get_rng_state()
        again = _train(spec, _teacher(spec))
        drew = not torch.equal(state, torch.get_rng_state())
    if drew:
        return "it draws from torch's global generator, not from batch.draws"
    return "" if _same(plain, again) else "a second run ends with other bits"


def _resumes(spec: RunSpec) -> str:
    plain = _train(spec, _teacher(spec))
    resumed = _train(spec, _teacher(spec), plain.after_first, steps=STEPS - 1)
    said = "resumed after the first step, it ends with other bits: is all its state in buffers?"
    return "" if _same(plain, resumed) else said


class _Guarded(nn.Module):
    """A teacher that shows NaN in place of what no term declares to need."""

    def __init__(self, network: FeatureNetwork, needs: set[str]) -> None:
        super().__init__()
        self.network, self.needs = network, needs

    def forward_features(self, images: Tensor) -> Outputs:
        shown = self.network.forward_features(images)
        if "teacher_features" in self.needs:
            return shown
        hidden = {
            name: tuple(torch.full_like(value, math.nan) for value in getattr(shown, name))
            for name in ("stages", "preactivations")
        }
        for need, name in (("teacher_logits", "logits"), ("teacher_pooled", "pooled")):
            if need not in self.needs:
                hidden[name] = torch.full_like(getattr(shown, name), math.nan)
        return replace(shown, **hidden)


def _reads(spec: RunSpec) -> str:
    teacher = _teacher(spec)
    if teacher is None:
        return ""
    needs = {need for term in spec.method.terms for need in term_class(term.term).needs}
    plain, guarded = _train(spec, teacher), _train(spec, _Guarded(teacher, needs).eval())
    same = _same(plain, guarded)
    return "" if same else f"it reads more of the teacher than its needs: {sorted(needs)}"


def _same(one: Trial, other: Trial) -> bool:
    parts = ("student", "objective")
    a, b = one.training.state(), other.training.state()
    return all(_equal(a[part], b[part]) for part in parts)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one
    )


def _has_effect(name: str, field: str, pairs: tuple[tuple[str, str], ...]) -> bool:
    """Return whether some other value of a setting changes what two steps make of a student."""
    default = resolve(Method(name=name), {})
    for teacher, student in pairs:
        plain = _run(default, teacher, student)
        if misfit(plain, facts(DATASET)):
            continue
        expected = _train(plain, _teacher(plain))
        for value in _other_values(term_class(name).Settings, field):
            changed = resolve(Method(name=name, settings={name: {field: value}}), {})
            spec = _run(changed, teacher, student)
            if misfit(spec, facts(DATASET)):
                return True  # it decided whether the pair fits
            if not _same(expected, _train(spec, _teacher(spec))):
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
    else:
        candidates = list(get_args(info.annotation))
    for value in candidates:
        if value == default:
            continue
        try:
            settings.model_validate({field: value})
        except ValidationError:
            continue
        yield value


def unsound(findings: list[Finding]) -> list[Finding]:
    """Return the findings that are problems."""
    return [finding for finding in findings if finding.problem]
