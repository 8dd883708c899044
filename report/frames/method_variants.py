"""The settings in which a study's methods differ, for the ablation and temperature tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skd.study.expansion import Expansion
from skd.study.spec import MethodSpec

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


@dataclass(frozen=True)
class MethodVariant:
    """A method that differs from a base method in its settings.

    Attributes:
        changes: each as ``(part, setting, base value, variant's value)``.
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
        }
        return tuple(sorted(names, key=lambda name: (name != "control", name)))


def method_variants(
    expansion: Expansion, teacher: str, student: str, base_method: str
) -> list[MethodVariant]:
    """Return a pair's variants of a base method, in the sheet's order.

    A variant has the base method's terms, which use the same kind of teacher logits, and has a
    simplifier if the base method has one. Only values of settings differ.
    """
    specs = method_specs(expansion, teacher, student)
    if base_method not in specs:
        return []
    base = _flat_settings(specs[base_method])
    variants = []
    for method, spec in specs.items():
        settings = _flat_settings(spec)
        if method == base_method or settings.keys() != base.keys():
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
    for method, spec in method_specs(expansion, teacher, student).items():
        settings = _flat_settings(spec)
        temperatures = {value for (_, name), value in settings.items() if name == TEMPERATURE}
        if len(temperatures) != 1:
            continue
        rest = {key: value for key, value in settings.items() if key[1] != TEMPERATURE}
        group = groups.setdefault(repr(sorted(rest.items(), key=repr)), {})
        group.setdefault(temperatures.pop(), method)
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def method_specs(expansion: Expansion, teacher: str, student: str) -> dict[str, MethodSpec]:
    """Return the resolved specs of a pair's methods, by name."""
    return {
        method: expansion.cell_of(teacher, student, method).spec.method
        for method in expansion.methods_of(teacher, student)
    }


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
