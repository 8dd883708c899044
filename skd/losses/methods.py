"""Resolve a method's name, or a sheet's description of it, to a list of terms.

A sum such as `skd+kd` has the terms of `skd` and those of `kd`, with cross-entropy once, at the
largest of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from skd.common.errors import suggest
from skd.common.frozen import FrozenModel, canonical
from skd.common.yaml_files import YamlError, read_yaml
from skd.losses.discovery import (
    broken_files,
    logits_names,
    term_class,
    term_classes,
    transformation_class,
    transformation_classes,
    transformations_by_logits,
)
from skd.losses.term import RAW, Need, TermSettings
from skd.study.limits import settings_problem
from skd.study.sheet import SheetMethod, format_validation_error
from skd.study.sheet_files import StudyError
from skd.study.spec import (
    CROSS_ENTROPY,
    SIMPLIFIER,
    MethodSpec,
    Recipe,
    TermSpec,
    TransformationSpec,
)

STRONG_VIEW = "strong_view"
DEFAULT_TERM = "kd"  # the loss of a method that has a transformation's name
SettingsByPart = Mapping[str, Mapping[str, Any]]
Model = TypeVar("Model", bound=FrozenModel)


@cache
def _listed_methods() -> dict[str, dict[str, Any]]:
    """Return the content of ``methods.yaml``: the methods that are more than one term."""
    try:
        return read_yaml(Path(__file__).with_name("methods.yaml"))
    except YamlError as error:
        raise StudyError(f"skd/losses/methods.yaml: {error}") from error


def method_names() -> list[str]:
    """Return the names of methods, without the sums of them that are methods too.

    Broken files are left out: see `skd.losses.discovery.broken_files`.
    """
    terms = (name for name in term_classes() if name != CROSS_ENTROPY)
    return [*_listed_methods(), *terms, *_transformation_methods()]


def _transformation_methods() -> dict[str, str]:
    """Return the transformations that are methods by their own name, with their logits' names.

    Each is KD on the transformed logits. One that a listed method uses has that method instead: the
    simplifier is used by `skd`.
    """
    used = {
        term.get("teacher")
        for name, method in _listed_methods().items()
        for term in method["terms"]
        if "+" not in name
    }
    by_logits = transformations_by_logits()
    return {name: logits for logits, name in by_logits.items() if logits not in used}


def _method_description(name: str) -> dict[str, Any]:
    """Return what a sheet would write for a method that is not a sum."""
    if name in _listed_methods():
        return _listed_methods()[name]
    if name in (transformations := _transformation_methods()):
        return {"terms": [{"term": DEFAULT_TERM, "teacher": transformations[name]}]}
    return {"terms": [{"term": name}]}


def resolve_method(
    method: SheetMethod, settings: SettingsByPart, place: str | None = None
) -> MethodSpec:
    """Return the method's terms and transformations with all their settings.

    Args:
        method: the method as a sheet describes it.
        settings: settings of the study and the pair, by the name of a term or a transformation.
            The method's own settings override them.
        place: where the sheet names the method, for messages; ``None``: among its methods.

    Raises:
        StudyError: unknown method, term, transformation or setting; or a transformation whose
            logits no term reads.
    """
    place = place or f"methods: {method.name}"
    terms, written = _method_parts(method, place)
    check_settings(settings, place)
    check_settings(method.settings, place)
    check_settings(written, place)
    resolved = _resolve_terms(terms, settings, method.settings, place)
    _check_terms(resolved, place)
    used = _used_transformations(resolved, written, place)
    parts = [*(term.get("term") for term in terms), *used]
    for name in method.settings:
        if name not in (CROSS_ENTROPY, *parts):
            raise StudyError(f"{place}: settings: has no part '{name}'{suggest(name, parts)}")
    spec = MethodSpec.of(
        (_term_spec(name, term_settings) for name, term_settings in resolved),
        (
            _resolve_transformation(
                name,
                {
                    **settings.get(name, {}),
                    **written.get(name, {}),
                    **method.settings.get(name, {}),
                },
                place,
            )
            for name in used
        ),
    )
    _check_classifiers(spec, place)
    return spec


def check_settings(settings: SettingsByPart, place: str) -> None:
    """Check that parts, keys and values exist, also those of parts that a method does not have.

    Raises:
        StudyError: one does not; names the place and the allowed names.
    """
    terms, transformations = term_classes(), transformation_classes()
    for name, values in settings.items():
        _check_not_broken(name, place)
        if name in transformations:
            _validated(transformations[name].Settings, values, f"{place}: {name}")
            continue
        if name not in terms:
            raise StudyError(
                f"{place}: settings for unknown term '{name}'"
                f"{suggest(name, [*terms, *transformations])}"
            )
        # Every setting has a default.
        validated = _validated(terms[name].Settings, values, f"{place}: term {name}")
        _check_logits(name, validated, place)
        if name == CROSS_ENTROPY:
            for key in ("cross_entropy", "teacher", "standardise"):
                if key in values:
                    raise StudyError(f"{place}: term {name} has no '{key}': set its weight")


def teacher_needs(method: MethodSpec) -> frozenset[Need]:
    """Return everything that a method's terms and transformations read of the teacher.

    A strong view is listed too, since the teacher's outputs on it are needed.
    """
    terms = (term_class(term.term).needs for term in method.terms)
    parts = (transformation_class(part.name).needs for part in method.transformations)
    return frozenset().union(*terms, *parts)


def needs_teacher(method: MethodSpec) -> bool:
    """Return whether any part of a method needs a teacher."""
    return bool(teacher_needs(method) - {STRONG_VIEW})


def needs_strong_view(method: MethodSpec) -> bool:
    """Return whether any part of a method needs a second, strong view of each image."""
    return STRONG_VIEW in teacher_needs(method)


def mixing_problem(method: MethodSpec, recipe: Recipe) -> str | None:
    """Return why a method cannot be trained on a recipe's mixed images; ``None`` if it can."""
    if recipe.mixing == "none":
        return None
    parts = {f"the term {spec.term}": term_class(spec.term) for spec in method.terms}
    for spec in method.transformations:
        parts[f"the transformation {spec.name}"] = transformation_class(spec.name)
    for label, part in parts.items():
        if part.reads_target and not part.reads_second_target:
            return (
                f"mixing: {recipe.mixing} is not possible: {label} reads single images or their "
                "classes"
            )
    return None


def uses_partner(method: MethodSpec) -> bool:
    """Return whether a method trains a teacher together with the student that it is to suit."""
    return any(term_class(term.term).uses_partner for term in method.terms)


def teacher_methods() -> list[str]:
    """Return the names of the methods that can train a teacher.

    They need no teacher, and the network's own logits are those that count.
    """
    methods = {name: resolve_method(SheetMethod(name=name), {}) for name in method_names()}
    return [
        name
        for name, method in methods.items()
        if not needs_teacher(method) and not classifier_terms(method)
    ]


def classifier_terms(method: MethodSpec) -> list[str]:
    """Return the terms of a method that replace the classifier of the trained network."""
    return [term.term for term in method.terms if term_class(term.term).replaces_classifier]


def _term_spec(name: str, settings: TermSettings) -> TermSpec:
    values = canonical(settings)
    del values["cross_entropy"]  # cross-entropy is a separate term
    return TermSpec(term=name, version=term_class(name).version, settings=values)


def _check_terms(terms: list[tuple[str, TermSettings]], place: str) -> None:
    """Check that weights and terms form a method.

    Raises:
        StudyError: they do not; says why.
    """
    if not any(settings.weight > 0 for _, settings in terms):
        raise StudyError(f"{place}: every term has weight 0; give one a positive weight")
    for name, settings in terms:
        _check_logits(name, settings, place)
        changes_logits = settings.teacher != RAW or settings.standardise
        if changes_logits and "teacher_logits" not in term_class(name).needs:
            raise StudyError(
                f"{place}: term {name} reads no teacher logits: remove its 'teacher: "
                f"{settings.teacher}' and 'standardise'"
            )


def _check_logits(term: str, settings: TermSettings, place: str) -> None:
    """Raise a StudyError if the teacher logits that a term names do not exist."""
    name = settings.teacher
    _check_not_broken(name, place)
    if name not in logits_names():
        raise StudyError(
            f"{place}: term {term}: teacher: unknown transformation '{name}'"
            f"{suggest(name, logits_names())}"
        )


def _used_transformations(
    terms: list[tuple[str, TermSettings]], written: SettingsByPart, place: str
) -> list[str]:
    """Return the transformations whose logits the terms read, in the order of the terms.

    Raises:
        StudyError: no term reads the logits of a transformation that the sheet writes.
    """
    by_logits = transformations_by_logits()
    read = (settings.teacher for _, settings in terms if settings.teacher != RAW)
    used = list(dict.fromkeys(by_logits[logits] for logits in read))
    for name in written:
        if name not in used:
            logits = next(logits for logits, each in by_logits.items() if each == name)
            raise StudyError(
                f"{place}: no term reads the logits of the {name}; give a term "
                f"'teacher: {logits}', or leave the {name} out"
            )
    return used


def _check_classifiers(method: MethodSpec, place: str) -> None:
    """Raise a StudyError if several terms replace the student's classifier."""
    names = classifier_terms(method)
    if len(names) > 1:
        raise StudyError(
            f"{place}: {' and '.join(names)} both replace the student's classifier; keep one"
        )


def _method_parts(
    method: SheetMethod, place: str
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return a method's terms as written, and the settings of its transformations by name."""
    if method.terms is not None and method.like is not None:
        raise StudyError(f"{place}: give 'terms' or 'like', not both")
    written = {name: dict(values) for name, values in method.transformations.items()}
    if method.simplifier is not None:
        if SIMPLIFIER in written:
            raise StudyError(f"{place}: give 'simplifier' or 'transformations', not both")
        written[SIMPLIFIER] = method.simplifier
    for name in written:
        _check_not_broken(name, place)
        if name not in transformation_classes():
            raise StudyError(
                f"{place}: unknown transformation '{name}'"
                f"{suggest(name, [*transformation_classes()])}"
            )
    if method.terms is not None:
        return list(method.terms), written
    terms: list[dict[str, Any]] = []
    for part in _split_sum(method.like or method.name, place):
        _check_not_broken(part, place)
        if part not in method_names():
            raise StudyError(
                f"{place}: unknown method '{part}'{suggest(part, method_names())}; "
                "or a sum of them such as skd+kd, or a description with 'terms' or 'like'"
            )
        description = _method_description(part)
        terms += [term for term in description["terms"] if term not in terms]
    return terms, written


def _check_not_broken(name: Any, place: str) -> None:
    """Raise a StudyError for a term or a transformation whose file is broken."""
    if isinstance(name, str) and name in broken_files():
        raise StudyError(f"{place}: {name} cannot be used: {broken_files()[name]}")


def _split_sum(name: str, place: str) -> list[str]:
    """Return the methods of a sum; a sum that is listed as a method is one of them."""
    parts = name.split("+")
    if repeated := {part for part in parts if parts.count(part) > 1}:
        raise StudyError(
            f"{place}: names {', '.join(sorted(repeated))} twice; to change a weight, use "
            "'settings'"
        )
    for listed in _listed_methods():
        listed_parts = listed.split("+")
        if len(listed_parts) > 1 and set(listed_parts) <= set(parts):
            parts = [listed, *(part for part in parts if part not in listed_parts)]
    return parts


def _resolve_terms(
    terms: list[dict[str, Any]],
    shared_settings: SettingsByPart,
    method_settings: SettingsByPart,
    place: str,
) -> list[tuple[str, TermSettings]]:
    """Return the terms with their settings, with cross-entropy once, as the first.

    A weight that is written for cross-entropy counts, else the largest one that a term requires.
    """

    def resolve(values: dict[str, Any], **defaults: Any) -> tuple[str, TermSettings]:
        name = values.get("term")
        _check_not_broken(name, place)
        if not isinstance(name, str) or name not in term_classes():
            raise StudyError(f"{place}: unknown term '{name}'{suggest(str(name), term_classes())}")
        values = {key: value for key, value in values.items() if key != "term"}
        values = {
            **defaults,
            **shared_settings.get(name, {}),
            **values,
            **method_settings.get(name, {}),
        }
        return name, _validated(term_class(name).Settings, values, f"{place}: term {name}")

    entropies = [values for values in terms if values.get("term") == CROSS_ENTROPY]
    others = [resolve(values) for values in terms if values not in entropies]
    weights = [settings.cross_entropy for _, settings in others]
    weights += [TermSettings().weight for _ in entropies]
    merged = {key: value for values in entropies for key, value in values.items()}
    return [resolve({"term": CROSS_ENTROPY, **merged}, weight=max(weights, default=1.0)), *others]


def _resolve_transformation(name: str, values: dict[str, Any], place: str) -> TransformationSpec:
    rule = transformation_class(name)
    settings = _validated(rule.Settings, values, f"{place}: {name}")
    return TransformationSpec(name=name, version=rule.version, settings=canonical(settings))


def _validated(model: type[Model], values: dict[str, Any], place: str) -> Model:
    """Return the settings as a model; raise a StudyError if a key or value is not allowed."""
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        raise StudyError(format_validation_error(place, error)) from error
    if problem := settings_problem(settings.model_dump()):
        raise StudyError(f"{place}: {problem}")
    return settings
