"""Settings of losses that cannot take full effect in a run. Imports no torch.

A sheet may set a warm-up that is longer than the training: the expansion notes it. A default that
is longer than the training is refused, because nobody chose it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from skd.common.validation_messages import format_value
from skd.study.expansion import Cell
from skd.study.sheet import SheetMethod, SweptMethod
from skd.study.spec import SIMPLIFIER, MethodSpec, Recipe

Settings = Mapping[str, Mapping[str, Any]]


def explicit_settings(method: SheetMethod, *levels: Settings) -> set[tuple[str, str]]:
    """Return the settings that a sheet writes for a method, as (part, setting).

    Args:
        method: the method as the sheet writes it.
        levels: settings of the study and of the pair, by part.
    """
    terms = [{str(term.get("term")): term} for term in method.terms or ()]
    explicit = {
        (part, name)
        for level in (*levels, method.settings, *terms)
        for part, settings in level.items()
        for name in settings
    }
    transformations = {**method.transformations, SIMPLIFIER: method.simplifier or {}}
    return explicit | {
        (part, name) for part, settings in transformations.items() for name in settings
    }


def ineffective_default(
    method: MethodSpec, recipe: Recipe, explicit: Collection[tuple[str, str]]
) -> str | None:
    """Return which default spans more epochs than the recipe has, and what to write instead.

    Args:
        method: the resolved method.
        recipe: its recipe.
        explicit: the settings that the sheet writes, as (part, setting).

    Returns:
        A message; ``None`` if there is no such default.
    """
    for part, name, value in _too_long(method, recipe):
        if (part, name) not in explicit:
            proposal = max(1, recipe.epochs // 3)
            return (
                f"term {part}: {name} {value} (the default): training ends with epoch "
                f"{recipe.epochs}, before this setting has taken full effect; write for example "
                f"settings: {{{part}: {{{name}: {proposal}}}}}, or {value} to keep the default"
            )
    return None


def ineffective_group(method: MethodSpec, recipe: Recipe) -> str | None:
    """Return why the simplifier's groups cannot be as large as set; ``None`` if they can."""
    group = method.simplifier.settings.get("group") if method.simplifier else None
    if group is None or group <= recipe.batch_size:
        return None
    return (
        f"simplifier: group {format_value(group)}: a batch has only {recipe.batch_size} images; "
        f"write a group of {recipe.batch_size} or less, or leave it out for the whole batch"
    )


def notes_on_long_settings(method: MethodSpec, recipe: Recipe) -> list[str]:
    """Return notes on settings that span more epochs than the recipe has."""
    return [
        f"term {part}: {name} {value}: training ends with epoch {recipe.epochs}, before this "
        "setting has taken full effect"
        for part, name, value in _too_long(method, recipe)
    ]


def notes_on_unused_settings(settings: Settings, methods: Iterable[MethodSpec]) -> list[str]:
    """Return a note on the parts that a study sets and that none of its methods has.

    Settings of pairs are not checked: studies that extend each other share them.
    """
    methods = list(methods)
    parts = {term.term for method in methods for term in method.terms}
    parts |= {part.name for method in methods for part in method.transformations}
    unused = [part for part in settings if part not in parts]
    return [f"settings: {', '.join(unused)}: no method has such a part"] if unused else []


def notes_on_equal_methods(methods: Iterable[SheetMethod], cells: Iterable[Cell]) -> list[str]:
    """Return notes on methods of a sweep that are the same as another method of the study."""
    swept = {method.name for method in methods if isinstance(method, SweptMethod)}
    by_run: dict[str, list[str]] = {}
    for cell in cells:
        by_run.setdefault(next(iter(cell.runs.values())), []).append(cell.method)
    return [
        f"methods: {name}: the same as {others[0]}; they share their runs"
        for names in by_run.values()
        for name in names
        if name in swept and (others := [other for other in names if other != name])
    ]


def _too_long(method: MethodSpec, recipe: Recipe) -> Iterable[tuple[str, str, int]]:
    """Yield (term, setting, value) for settings that span more epochs than the recipe has."""
    for term in method.terms:
        for name, value in term.settings.items():
            if name.endswith("_epochs") and isinstance(value, int) and value > recipe.epochs:
                yield term.term, name, value
