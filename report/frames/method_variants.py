"""The settings in which a study's methods differ, for the tables and figures of sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skd.study.expansion import Expansion
from skd.study.spec import MethodSpec, RunSpec

# The assumption (docs/assumptions.md) that each setting of the simplifier belongs to.
SIMPLIFIER_ASSUMPTIONS = {
    "temperature": "A1",
    "softening": "A1",
    "axis": "A2",
    "heads": "A3",
    "width": "A3",
    "layer_norm": "A3",
    "combination": "A4",
    "output_init": "A4",
    "values": "A4",
    "learning_rate_multiplier": "A6",
    "weight_decay": "A6",
    "objective": "A6",
    "anchor": "A6",
    "group": "A7",
    "trainable": "control",
}
TERM_ASSUMPTION = "A5"
TEMPERATURE = "temperature"
RECIPE = "recipe"  # the part of a run's recipe in changes
MIN_CURVE_VALUES = 3  # two methods are a comparison, which the ablation table has


@dataclass(frozen=True)
class SettingCurve:
    """Methods of a pair that differ only in the value of one numeric setting.

    Attributes:
        part: a term, a transformation or ``recipe``.
        methods: by value, in increasing order; `MIN_CURVE_VALUES` or more.
    """

    part: str
    setting: str
    methods: Mapping[float, str]

    @property
    def label(self) -> str:
        """The setting with its part, for titles."""
        return f"{self.part}: {self.setting.replace('_', ' ')}"


@dataclass(frozen=True)
class MethodVariant:
    """A method that differs from a base method in its settings.

    Attributes:
        changes: each as ``(part, setting, base value, variant's value)``. The part is a term, a
            transformation or ``recipe``.
    """

    method: str
    base: str
    changes: tuple[tuple[str, str, Any, Any], ...]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumptions that the changes belong to, in order; ``control`` comes first."""
        names = {
            SIMPLIFIER_ASSUMPTIONS[setting] if part == "simplifier" else TERM_ASSUMPTION
            for part, setting, _, _ in self.changes
            if part != RECIPE
        }
        return tuple(sorted(names, key=lambda name: (name != "control", name)))


def method_variants(
    expansion: Expansion, teacher: str, student: str, base_method: str
) -> list[MethodVariant]:
    """Return a pair's variants of a base method, in the sheet's order.

    A variant has the base method's teacher and terms, which use the same kind of teacher logits,
    and has a simplifier if the base method has one. Only values of settings differ.
    """
    specs = run_specs(expansion, teacher, student)
    if base_method not in specs:
        return []
    base = _run_settings(specs[base_method])
    variants = []
    for method, spec in specs.items():
        settings = _run_settings(spec)
        if method == base_method or settings.keys() != base.keys():
            continue
        if _teacher(spec) != _teacher(specs[base_method]):
            continue
        changes = tuple(
            (part, setting, base[part, setting], value)
            for (part, setting), value in settings.items()
            if base[part, setting] != value
        )
        variants.append(MethodVariant(method, base_method, changes))
    return variants


def temperature_groups(expansion: Expansion, teacher: str, student: str) -> list[dict[float, str]]:
    """Return the groups of a pair's methods that differ only in the temperature.

    Each group maps two or more temperatures to methods. A method is included if its softening and
    its losses have the same temperature. If methods have equal settings, the sheet's first is used.
    """
    groups: dict[str, dict[float, str]] = {}
    for method, spec in run_specs(expansion, teacher, student).items():
        settings = _flat_settings(spec.method)
        temperatures = {value for (_, name), value in settings.items() if name == TEMPERATURE}
        if len(temperatures) != 1:
            continue
        rest = {key: value for key, value in settings.items() if key[1] != TEMPERATURE}
        group = groups.setdefault(_group_key(spec, rest), {})
        group.setdefault(temperatures.pop(), method)
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def setting_curves(expansion: Expansion, teacher: str, student: str) -> list[SettingCurve]:
    """Return a pair's curves over the values of numeric settings, as a sweep makes them.

    Methods that differ only in temperature are left out: `temperature_groups` has them. If methods
    have equal settings, the sheet's first is used.
    """
    specs = run_specs(expansion, teacher, student)
    settings = {method: _run_settings(spec) for method, spec in specs.items()}
    temperatures = temperature_groups(expansion, teacher, student)
    curves = []
    for key in dict.fromkeys(key for values in settings.values() for key in values):
        having = {method: values for method, values in settings.items() if _number(values, key)}
        if len({values[key] for values in having.values()}) < MIN_CURVE_VALUES:
            continue
        groups: dict[str, dict[float, str]] = {}
        for method, values in having.items():
            rest = {other: value for other, value in values.items() if other != key}
            group = groups.setdefault(_group_key(specs[method], rest), {})
            group.setdefault(values[key], method)
        curves += [
            SettingCurve(*key, dict(sorted(group.items())))
            for group in groups.values()
            if len(group) >= MIN_CURVE_VALUES
        ]
    return [
        curve
        for curve in curves
        if curve.setting != TEMPERATURE or curve.methods not in temperatures
    ]


def run_specs(expansion: Expansion, teacher: str, student: str) -> dict[str, RunSpec]:
    """Return the specs of a pair's methods, by name."""
    return {
        method: expansion.cell_of(teacher, student, method).spec
        for method in expansion.methods_of(teacher, student)
    }


def _teacher(spec: RunSpec) -> str | None:
    """Return the identity of a run's teacher: a method may have another one than its pair."""
    return spec.teacher.identity if spec.teacher else None


def _group_key(spec: RunSpec, settings: Mapping[tuple[str, str], Any]) -> str:
    """Return a text that is equal for runs with the same teacher and these settings."""
    return repr((_teacher(spec), sorted(settings.items(), key=repr)))


def _run_settings(spec: RunSpec) -> dict[tuple[str, str], Any]:
    """Return all settings of a run's method and recipe, by (part, setting)."""
    recipe = {(RECIPE, name): value for name, value in spec.recipe.model_dump().items()}
    return {**_flat_settings(spec.method), **recipe}


def _number(settings: Mapping[tuple[str, str], Any], key: tuple[str, str]) -> bool:
    value = settings.get(key)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat_settings(spec: MethodSpec) -> dict[tuple[str, str], Any]:
    """Return all settings by (part, setting).

    A part is a term or a transformation. A term that occurs several times is numbered.
    """
    parts: dict[str, Mapping[str, Any]] = {}
    for term in spec.terms:
        logits = term.settings.get("teacher", "")
        name = term.term if logits in ("", "raw") else f"{term.term} on {logits}"
        count = sum(part.split(" #")[0] == name for part in parts)
        parts[f"{name} #{count + 1}" if count else name] = term.settings
    parts |= {part.name: part.settings for part in spec.transformations}
    return {(part, key): value for part, values in parts.items() for key, value in values.items()}
