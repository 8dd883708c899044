"""Check that each setting of a loss or a transformation is described and has an effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError

from skd.authoring.findings import Finding, run_check
from skd.authoring.trial import (
    TRIAL_DATASET,
    TRIAL_STEPS,
    make_teacher,
    run_trial,
    same_final_state,
    same_student,
    trial_spec,
)
from skd.common.frozen import FrozenModel
from skd.data import dataset_facts
from skd.expansion.dry_run import fit_problem
from skd.losses.discovery import term_class, transformation_class, transformation_classes
from skd.losses.methods import resolve_method
from skd.losses.term import TermSettings
from skd.losses.transformation import TransformationSettings
from skd.study.sheet import SheetMethod

Pairs = tuple[tuple[str, str], ...]
CHECK = "documented and used"


def check_settings(name: str, pairs: Pairs) -> Iterator[Finding]:
    """Check that each own setting has a default, a description and an effect.

    A term's setting must change what the student learns; a transformation's, the training.

    Args:
        name: a term or a transformation.
        pairs: (teacher, student) by name; those that do not fit are passed over.
    """
    settings, shared = _settings(name)
    for field, info in settings.model_fields.items():
        if field in shared.model_fields:
            continue  # the objective uses these
        subject = f"setting {field}"
        if info.is_required():
            yield Finding(subject, CHECK, problem="it has no default")
        elif not info.description:
            problem = "it has no description: use Field(default, description=…)"
            yield Finding(subject, CHECK, problem=problem)
        elif not list(_other_values(settings, field, {})):
            refused = "not tried: no other allowed value could be guessed"
            yield Finding(subject, CHECK, refused=refused)
        else:
            yield run_check(subject, CHECK, lambda field=field: _problem(name, field, pairs))


def logits_method(transformation: str, term: str, settings: dict[str, Any]) -> SheetMethod:
    """Return the method of a term on a transformation's logits."""
    logits = transformation_class(transformation).logits_name or transformation
    name = transformation if term == "kd" else f"{transformation}-{term}"
    terms = ({"term": term, "teacher": logits},)
    return SheetMethod(name=name, terms=terms, settings={transformation: settings})


def _settings(name: str) -> tuple[type[FrozenModel], type[FrozenModel]]:
    """Return the class of a part's settings, and the class that all parts of its kind share."""
    if name in transformation_classes():
        return transformation_class(name).Settings, TransformationSettings
    return term_class(name).Settings, TermSettings


def _problem(name: str, field: str, pairs: Pairs) -> str:
    if any(_has_effect(name, field, base, pairs) for base in _bases(name, field)):
        return ""
    learner = "the training does" if name in transformation_classes() else "the student learns"
    return f"no other value changes what {learner}"


def _has_effect(name: str, field: str, base: dict[str, Any], pairs: Pairs) -> bool:
    """Return whether another value of a setting changes the outcome of two epochs.

    Args:
        name: a term or a transformation.
        field: the setting.
        base: the other settings, as far as they are not the defaults.
        pairs: (teacher, student) by name.
    """
    same = same_final_state if name in transformation_classes() else same_student
    default = resolve_method(_method(name, base), {})
    for teacher, student in pairs:
        plain = trial_spec(default, teacher, student)
        if fit_problem(plain, dataset_facts(TRIAL_DATASET)):
            continue
        changed = [
            resolve_method(_method(name, {**base, field: value}), {})
            for value in _other_values(_settings(name)[0], field, base)
        ]
        specs = [trial_spec(method, teacher, student) for method in changed]
        if any(fit_problem(spec, dataset_facts(TRIAL_DATASET)) for spec in specs):
            return True  # the setting decides whether the pair fits
        for steps in (TRIAL_STEPS, 2 * TRIAL_STEPS):  # in the first epoch, and in the second one
            expected = run_trial(plain, make_teacher(plain), steps=steps)
            for spec in specs:
                if not same(expected, run_trial(spec, make_teacher(spec), steps=steps)):
                    return True
    return False


def _method(name: str, settings: dict[str, Any]) -> SheetMethod:
    if name in transformation_classes():
        return logits_method(name, "kd", settings)
    return SheetMethod(name=name, settings={name: settings})


def _bases(name: str, field: str) -> Iterator[dict[str, Any]]:
    """Yield the defaults, then each other choice of another setting: some work only with one."""
    yield {}
    settings, shared = _settings(name)
    for other, info in settings.model_fields.items():
        if other != field and other not in shared.model_fields and _is_choice(info.default):
            yield from ({other: value} for value in _other_values(settings, other, {}))


def _is_choice(default: Any) -> bool:
    return isinstance(default, bool | str) or default is None


def _other_values(settings: type[FrozenModel], field: str, base: dict[str, Any]) -> Iterator[Any]:
    """Yield allowed values of a setting other than its default, beside some other settings."""
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
            settings.model_validate({**base, field: value})
        except ValidationError:
            continue
        yield value
