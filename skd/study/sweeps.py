"""Sweeps of a sheet's methods: one method for each value of a setting. Imports no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skd.common.errors import suggest
from skd.common.validation_messages import format_value
from skd.study.spec import Recipe

RECIPE = "recipe"
MAX_POINTS = 1000
Sweep = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class SweepPoint:
    """The settings of one method of a sweep.

    Attributes:
        suffix: of the method's name: the values in the order of the keys.
        settings: by part.
        recipe: changes of the recipe.
    """

    suffix: str
    settings: dict[str, dict[str, Any]]
    recipe: dict[str, Any]


def sweep_points(sweep: Sweep) -> Iterator[SweepPoint]:
    """Yield all combinations of the values; the last key varies fastest.

    Args:
        sweep: values by key: ``PART.SETTING`` or ``recipe.SETTING``.

    Raises:
        ValueError: no key, a key of another form, an unknown setting of the recipe, no values,
            a value twice, or too many combinations. Parts and their settings are checked later.
    """
    if not sweep:
        raise ValueError("sweep: names no setting; write for example {kd.temperature: [2, 4]}")
    keys = [_split_key(key) for key in sweep]
    for key, values in sweep.items():
        _check_values(key, values)
    if (count := math.prod(map(len, sweep.values()))) > MAX_POINTS:
        raise ValueError(
            f"sweep: {count:,} combinations of the values; allowed: up to {MAX_POINTS:,} methods"
        )
    for values in itertools.product(*sweep.values()):
        settings: dict[str, dict[str, Any]] = {}
        recipe: dict[str, Any] = {}
        for (part, name), value in zip(keys, values, strict=True):
            target = recipe if part == RECIPE else settings.setdefault(part, {})
            target[name] = value
        yield SweepPoint("-".join(map(value_name, values)), settings, recipe)


def value_name(value: Any) -> str:
    """Return a value as a part of a method's name: 4, 0.5, true, none, 150_180."""
    if isinstance(value, list | tuple):
        return "_".join(map(value_name, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value)


def _split_key(key: str) -> tuple[str, str]:
    part, _, name = key.rpartition(".")
    if not part or not name:
        raise ValueError(
            f"sweep: '{key}': write PART.SETTING, such as simplifier.temperature or kd.weight, or "
            "recipe.SETTING"
        )
    if part == RECIPE and name not in Recipe.model_fields:
        raise ValueError(f"sweep: {key}: unknown setting '{name}'{suggest(name, _recipe_names())}")
    return part, name


def _recipe_names() -> list[str]:
    return list(Recipe.model_fields)


def _check_values(key: str, values: Sequence[Any]) -> None:
    if not values:
        raise ValueError(f"sweep: {key}: has no values; write a list such as [1, 2, 4]")
    names = [value_name(value) for value in values]
    for value, name in zip(values, names, strict=True):
        if isinstance(value, dict):
            raise ValueError(f"sweep: {key}: {format_value(value)} is not a value of a setting")
        if names.count(name) > 1:
            raise ValueError(f"sweep: {key}: {format_value(value)} is listed twice")
