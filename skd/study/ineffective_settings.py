"""Settings of losses that cannot take full effect in a run. Imports no torch.

A warm-up longer than the training is a possible choice: where a sheet writes it, it is noted. As a
default it is nobody's choice, and refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from skd.common.validation_messages import format_value
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec, Recipe

Settings = Mapping[str, Mapping[str, Any]]
SIMPLIFIER = "simplifier"


def explicit_settings(method: SheetMethod, *levels: Settings) -> set[tuple[str, str]]:
    """Return which settings of which parts a sheet writes for a method: (part, setting)."""
    own = [{str(term.get("term")): term} for term in method.terms or ()]
    found = {
        (part, name)
        for level in (*levels, method.settings, *own)
        for part, settings in level.items()
        for name in settings
    }
    return found | {(SIMPLIFIER, name) for name in method.simplifier or {}}


def ineffective_default(
    method: MethodSpec, recipe: Recipe, written: Collection[tuple[str, str]]
) -> str | None:
    """Return which default spans more epochs than the recipe has, and what to write, or none."""
    for part, name, value in _too_long(method, recipe):
        if (part, name) not in written:
            some = max(1, recipe.epochs // 3)
            return (
                f"term {part}: {name} {value} (the default): training ends with epoch "
                f"{recipe.epochs}, before it is over; write settings: "
                f"{{{part}: {{{name}: {some}}}}}, say, or {value} if that is meant"
            )
    return None


def ineffective_group(method: MethodSpec, recipe: Recipe) -> str | None:
    """Return why the simplifier's groups cannot be as large as they are set, or none."""
    group = method.simplifier.settings.get("group") if method.simplifier else None
    if group is None or group <= recipe.batch_size:
        return None
    return (
        f"simplifier: group {format_value(group)}: a batch has only {recipe.batch_size} images; write a "
        f"group of {recipe.batch_size} or less, or leave it out for the whole batch"
    )


def notes_on_long_settings(method: MethodSpec, recipe: Recipe) -> list[str]:
    """Return notes on what is written and spans more epochs than the recipe has."""
    return [
        f"term {part}: {name} {value}: training ends with epoch {recipe.epochs}, before it is over"
        for part, name, value in _too_long(method, recipe)
    ]


def notes_on_unused_settings(settings: Settings, methods: Iterable[MethodSpec]) -> list[str]:
    """Return a note on parts that a study sets for all methods and that none of them has.

    Settings of pairs are left alone: studies that extend each other share them.
    """
    methods = list(methods)
    parts = {term.term for method in methods for term in method.terms}
    parts |= {SIMPLIFIER for method in methods if method.simplifier}
    unused = [part for part in settings if part not in parts]
    return [f"settings: {', '.join(unused)}: no method has such a part"] if unused else []


def _too_long(method: MethodSpec, recipe: Recipe) -> Iterable[tuple[str, str, int]]:
    """Yield term, setting and value of what takes more epochs than there are."""
    for term in method.terms:
        for name, value in term.settings.items():
            if name.endswith("_epochs") and isinstance(value, int) and value > recipe.epochs:
                yield term.term, name, value
