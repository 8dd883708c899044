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
from skd.losses.discovery import broken_terms, term_class, term_classes
from skd.losses.simplifier import SIMPLIFIER_VERSION, SimplifierSettings
from skd.losses.term import Need, TermSettings
from skd.study.limits import settings_problem
from skd.study.sheet import SheetMethod, format_validation_error
from skd.study.sheet_files import StudyError
from skd.study.spec import MethodSpec, SimplifierSpec, TermSpec

CROSS_ENTROPY = "cross_entropy"
SIMPLIFIER = "simplifier"
SettingsByTerm = Mapping[str, Mapping[str, Any]]
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

    Broken terms are left out: see `skd.losses.discovery.broken_terms`.
    """
    return [*_listed_methods(), *(name for name in term_classes() if name != CROSS_ENTROPY)]


def resolve_method(method: SheetMethod, settings: SettingsByTerm) -> MethodSpec:
    """Return the method's terms with all their settings.

    Args:
        method: the method as a sheet describes it.
        settings: settings of the study and the pair, by term name or ``simplifier``. The method's
            own settings override them.

    Raises:
        StudyError: unknown method, term or setting; or a simplifier without a term that reads its
            logits, or the other way round.
    """
    place = f"methods: {method.name}"
    terms, simplifier = _method_parts(method, place)
    check_settings(settings, place)
    check_settings(method.settings, place)
    parts = [term.get("term") for term in terms] + [SIMPLIFIER] * (simplifier is not None)
    for name in method.settings:
        if name not in (CROSS_ENTROPY, *parts):
            raise StudyError(f"{place}: settings: has no term '{name}'{suggest(name, parts)}")
    resolved = _resolve_terms(terms, settings, method.settings, place)
    _check_terms(resolved, simplifier is not None, place)
    return MethodSpec(
        terms=tuple(_term_spec(name, term_settings) for name, term_settings in resolved),
        simplifier=None
        if simplifier is None
        else _resolve_simplifier(
            {**settings.get(SIMPLIFIER, {}), **simplifier, **method.settings.get(SIMPLIFIER, {})},
            place,
        ),
    )


def check_settings(settings: SettingsByTerm, place: str) -> None:
    """Check that terms, keys and values exist, also those of terms that a method does not have.

    Raises:
        StudyError: one does not; names the place and the allowed names.
    """
    known = {name: term.Settings for name, term in term_classes().items()}
    known[SIMPLIFIER] = SimplifierSettings
    for name, values in settings.items():
        _check_not_broken(name, place)
        if name not in known:
            raise StudyError(f"{place}: settings for unknown term '{name}'{suggest(name, known)}")
        part = name if name == SIMPLIFIER else f"term {name}"
        _validated(known[name], values, f"{place}: {part}")  # every setting has a default
        if name == CROSS_ENTROPY:
            for key in ("cross_entropy", "teacher", "standardise"):
                if key in values:
                    raise StudyError(f"{place}: term {name} has no '{key}': set its weight")


def teacher_needs(method: MethodSpec) -> frozenset[Need]:
    """Return everything that a method's terms, and so its simplifier, read of the teacher."""
    return frozenset().union(*(term_class(term.term).needs for term in method.terms))


def needs_teacher(method: MethodSpec) -> bool:
    """Return whether any term needs a teacher."""
    return bool(teacher_needs(method))


def _term_spec(name: str, settings: TermSettings) -> TermSpec:
    values = canonical(settings)
    del values["cross_entropy"]  # cross-entropy is a separate term
    return TermSpec(term=name, version=term_class(name).version, settings=values)


def _check_terms(terms: list[tuple[str, TermSettings]], has_simplifier: bool, place: str) -> None:
    """Check that weights, terms and simplifier form a method.

    Raises:
        StudyError: they do not; says why.
    """
    if not any(settings.weight > 0 for _, settings in terms):
        raise StudyError(f"{place}: every term has weight 0; give one a positive weight")
    for name, settings in terms:
        changes_logits = settings.teacher == "simplified" or settings.standardise
        if changes_logits and "teacher_logits" not in term_class(name).needs:
            raise StudyError(
                f"{place}: term {name} reads no teacher logits: remove its 'teacher: simplified' "
                "and 'standardise'"
            )
    reads_simplified = any(settings.teacher == "simplified" for _, settings in terms)
    if reads_simplified != has_simplifier:
        raise StudyError(
            f"{place}: a simplifier needs a term with 'teacher: simplified', and such a term needs "
            "a simplifier; give both or neither"
        )


def _method_parts(
    method: SheetMethod, place: str
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a method's terms as written, and its simplifier's settings or ``None``."""
    if method.terms is not None and method.like is not None:
        raise StudyError(f"{place}: give 'terms' or 'like', not both")
    if method.terms is not None:
        return list(method.terms), method.simplifier
    terms: list[dict[str, Any]] = []
    simplifier: dict[str, Any] | None = None
    for part in _split_sum(method.like or method.name, place):
        _check_not_broken(part, place)
        if part not in method_names():
            raise StudyError(
                f"{place}: unknown method '{part}'{suggest(part, method_names())}; "
                "or a sum of them such as skd+kd, or a description with 'terms' or 'like'"
            )
        description = _listed_methods().get(part, {"terms": [{"term": part}]})
        terms += [term for term in description["terms"] if term not in terms]
        if "simplifier" in description:
            simplifier = {**(simplifier or {}), **description["simplifier"]}
    if method.simplifier is not None:
        simplifier = {**(simplifier or {}), **method.simplifier}
    return terms, simplifier


def _check_not_broken(name: Any, place: str) -> None:
    """Raise a StudyError for a term whose file is broken."""
    if isinstance(name, str) and name in broken_terms():
        raise StudyError(f"{place}: {name} cannot be used: {broken_terms()[name]}")


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
    shared_settings: SettingsByTerm,
    method_settings: SettingsByTerm,
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


def _resolve_simplifier(values: dict[str, Any], place: str) -> SimplifierSpec:
    settings = _validated(SimplifierSettings, values, f"{place}: simplifier")
    return SimplifierSpec(version=SIMPLIFIER_VERSION, settings=canonical(settings))


def _validated(model: type[Model], values: dict[str, Any], place: str) -> Model:
    """Return the settings as a model; raise a StudyError if a key or value is not allowed."""
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        raise StudyError(format_validation_error(place, error)) from error
    if problem := settings_problem(settings.model_dump()):
        raise StudyError(f"{place}: {problem}")
    return settings
