"""From a method's name, or a sheet's description of it, to a resolved list of terms.

Composition is data: `skd+kd` is the terms of `skd` and those of `kd`, with cross-entropy counted
once, at the largest weight it has among the parts.
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
def _listed() -> dict[str, dict[str, Any]]:
    try:
        return read_yaml(Path(__file__).with_name("methods.yaml"))
    except YamlError as error:
        raise StudyError(f"skd/losses/methods.yaml: {error}") from error


def method_names() -> list[str]:
    """Return the names that stand for a method by themselves; sums of them do too.

    Those of broken terms are not among them: `skd.losses.discovery.broken_terms`.
    """
    return [*_listed(), *(name for name in term_classes() if name != CROSS_ENTROPY)]


def resolve_method(method: SheetMethod, settings: SettingsByTerm) -> MethodSpec:
    """Return the method's terms with all their settings.

    Args:
        method: as a sheet describes it.
        settings: by term's name, or ``simplifier``: the study's and the pair's; the method's own
            come on top.

    Raises:
        StudyError: an unknown method, term or setting, or a simplifier that no term sees through.
    """
    where = f"methods: {method.name}"
    terms, simplifier = _parts(method, where)
    check_settings(settings, where)
    check_settings(method.settings, where)
    parts = [term.get("term") for term in terms] + [SIMPLIFIER] * (simplifier is not None)
    for name in method.settings:
        if name not in (CROSS_ENTROPY, *parts):
            raise StudyError(f"{where}: has no part '{name}' to set{suggest(name, parts)}")
    resolved = _terms(terms, settings, method.settings, where)
    if not any(settings.weight > 0 for _, settings in resolved):
        raise StudyError(f"{where}: every term has weight 0")
    for name, chosen in resolved:
        changed = chosen.teacher == "simplified" or chosen.standardise
        if changed and "teacher_logits" not in term_class(name).needs:
            raise StudyError(
                f"{where}: term {name} sees no teacher logits: neither 'teacher: simplified' nor "
                "'standardise' is for it"
            )
    sees_simplified = any(settings.teacher == "simplified" for _, settings in resolved)
    if sees_simplified != (simplifier is not None):
        raise StudyError(
            f"{where}: a simplifier and a term with 'teacher: simplified' go together; "
            "give both or neither"
        )
    return MethodSpec(
        terms=tuple(_term_spec(name, chosen) for name, chosen in resolved),
        simplifier=None
        if simplifier is None
        else _simplifier(
            {**settings.get(SIMPLIFIER, {}), **simplifier, **method.settings.get(SIMPLIFIER, {})},
            where,
        ),
    )


def check_settings(settings: SettingsByTerm, where: str) -> None:
    """Refuse unknown parts, keys and values, also of parts that the method at hand lacks.

    Raises:
        StudyError: names the place and the allowed names.
    """
    known = {name: term.Settings for name, term in term_classes().items()}
    known[SIMPLIFIER] = SimplifierSettings
    for name, values in settings.items():
        _refuse_broken(name, where)
        if name not in known:
            raise StudyError(f"{where}: settings for unknown term '{name}'{suggest(name, known)}")
        part = name if name == SIMPLIFIER else f"term {name}"
        _validated(known[name], values, f"{where}: {part}")  # every setting has a default
        if name == CROSS_ENTROPY:
            for idle in ("cross_entropy", "teacher", "standardise"):
                if idle in values:
                    raise StudyError(f"{where}: term {name} has no '{idle}': set its weight")


def _term_spec(name: str, settings: TermSettings) -> TermSpec:
    values = canonical(settings)
    del values["cross_entropy"]  # it has become a term of its own
    return TermSpec(term=name, version=term_class(name).version, settings=values)


def teacher_needs(method: MethodSpec) -> frozenset[Need]:
    """Return all that a method's terms read of the teacher; a simplifier's are among them."""
    return frozenset().union(*(term_class(term.term).needs for term in method.terms))


def needs_teacher(method: MethodSpec) -> bool:
    """Return whether any term needs a teacher."""
    return bool(teacher_needs(method))


def _parts(method: SheetMethod, where: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a method's terms as written, and its simplifier's settings."""
    if method.terms is not None and method.like is not None:
        raise StudyError(f"{where}: give 'terms' or 'like', not both")
    if method.terms is not None:
        return list(method.terms), method.simplifier
    terms: list[dict[str, Any]] = []
    simplifier: dict[str, Any] | None = None
    for part in _named_parts(method.like or method.name, where):
        _refuse_broken(part, where)
        if part not in method_names():
            raise StudyError(
                f"{where}: unknown method '{part}'{suggest(part, method_names())}; "
                "or a sum of them such as skd+kd, or a description with 'terms' or 'like'"
            )
        listed = _listed().get(part, {"terms": [{"term": part}]})
        terms += [term for term in listed["terms"] if term not in terms]
        if "simplifier" in listed:
            simplifier = {**(simplifier or {}), **listed["simplifier"]}
    if method.simplifier is not None:
        simplifier = {**(simplifier or {}), **method.simplifier}
    return terms, simplifier


def _refuse_broken(name: Any, where: str) -> None:
    """Refuse a term whose file is broken, so that no study silently goes without it."""
    if isinstance(name, str) and name in broken_terms():
        raise StudyError(f"{where}: {name} cannot be used: {broken_terms()[name]}")


def _named_parts(name: str, where: str) -> list[str]:
    """Return the named methods that a sum is made of; a listed sum counts as one of them."""
    parts = name.split("+")
    if twice := {part for part in parts if parts.count(part) > 1}:
        raise StudyError(
            f"{where}: names {', '.join(sorted(twice))} twice; to change a weight, use 'settings'"
        )
    for listed in _listed():
        own = listed.split("+")
        if len(own) > 1 and set(own) <= set(parts):
            parts = [listed, *(part for part in parts if part not in own)]
    return parts


def _terms(
    written: list[dict[str, Any]], shared: SettingsByTerm, own: SettingsByTerm, where: str
) -> list[tuple[str, TermSettings]]:
    """Return the terms with their settings, cross-entropy first and once.

    Its weight is the one that is written anywhere, or else the largest among the parts.
    """

    def term(values: dict[str, Any], **defaults: Any) -> tuple[str, TermSettings]:
        name = values.get("term")
        _refuse_broken(name, where)
        if not isinstance(name, str) or name not in term_classes():
            raise StudyError(f"{where}: unknown term '{name}'{suggest(str(name), term_classes())}")
        values = {key: value for key, value in values.items() if key != "term"}
        values = {**defaults, **shared.get(name, {}), **values, **own.get(name, {})}
        return name, _validated(term_class(name).Settings, values, f"{where}: term {name}")

    entropies = [values for values in written if values.get("term") == CROSS_ENTROPY]
    others = [term(values) for values in written if values not in entropies]
    weights = [settings.cross_entropy for _, settings in others]
    weights += [TermSettings().weight for _ in entropies]
    merged = {key: value for values in entropies for key, value in values.items()}
    return [term({"term": CROSS_ENTROPY, **merged}, weight=max(weights, default=1.0)), *others]


def _simplifier(values: dict[str, Any], where: str) -> SimplifierSpec:
    settings = _validated(SimplifierSettings, values, f"{where}: simplifier")
    return SimplifierSpec(version=SIMPLIFIER_VERSION, settings=canonical(settings))


def _validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return settings, with their numbers within bounds."""
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        raise StudyError(format_validation_error(where, error)) from error
    if problem := settings_problem(settings.model_dump()):
        raise StudyError(f"{where}: {problem}")
    return settings
