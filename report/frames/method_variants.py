"""In which settings a study's methods differ: the ablation, and the temperature's sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skd.study.expansion import Expansion
from skd.study.spec import MethodSpec

# Which assumption (docs/assumptions.md) a setting belongs to; of terms, by the setting's name.
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
    "objective": "A6",
    "anchor": "A6",
    "group": "A7",
    "trainable": "control",
}
TERM_ASSUMPTION = "A5"
TEMPERATURE = "temperature"


@dataclass(frozen=True)
class MethodVariant:
    """A method beside the one it varies.

    Attributes:
        changes: what differs, as ``(part, setting, usual value, its value)``.
        assumptions: those that the changes belong to, in order.
    """

    method: str
    base: str
    changes: tuple[tuple[str, str, Any, Any], ...]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumptions that are varied; a control's own name comes first."""
        found = {
            SIMPLIFIER_ASSUMPTIONS[setting] if part == "simplifier" else TERM_ASSUMPTION
            for part, setting, _, _ in self.changes
        }
        return tuple(sorted(found, key=lambda name: (name != "control", name)))


def method_variants(
    expansion: Expansion, teacher: str, student: str, base_method: str
) -> list[MethodVariant]:
    """Return the methods of a pair that are ``base_method`` with other settings, in the sheet's order.

    Those whose terms are the base's, by name and by which teacher logits they see, and that have a
    simplifier as the base has.
    """
    specs = method_specs(expansion, teacher, student)
    if base_method not in specs:
        return []
    usual = _flat(specs[base_method])
    found = []
    for method, spec in specs.items():
        own = _flat(spec)
        if method == base_method or own.keys() != usual.keys():
            continue
        changes = tuple(
            (part, setting, usual[part, setting], value)
            for (part, setting), value in own.items()
            if usual[part, setting] != value
        )
        found.append(MethodVariant(method, base_method, changes))
    return found


def temperature_groups(expansion: Expansion, teacher: str, student: str) -> list[dict[float, str]]:
    """Return the groups of a pair's methods that differ in temperature alone: T to method.

    Every temperature of a method must be the same, softening's and loss's; a group has two
    temperatures at least. Of methods that differ in nothing, the sheet's first stands for all.
    """
    groups: dict[str, dict[float, str]] = {}
    for method, spec in method_specs(expansion, teacher, student).items():
        flat = _flat(spec)
        temperatures = {value for (_, setting), value in flat.items() if setting == TEMPERATURE}
        if len(temperatures) != 1:
            continue
        rest = {key: value for key, value in flat.items() if key[1] != TEMPERATURE}
        group = groups.setdefault(repr(sorted(rest.items(), key=repr)), {})
        group.setdefault(temperatures.pop(), method)
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def method_specs(expansion: Expansion, teacher: str, student: str) -> dict[str, MethodSpec]:
    """Return a pair's methods as resolved."""
    return {
        method: expansion.cell_of(teacher, student, method).spec.method
        for method in expansion.methods_of(teacher, student)
    }


def _flat(spec: MethodSpec) -> dict[tuple[str, str], Any]:
    """Return all settings by (part, setting); a part is a term, numbered if it is there twice."""
    parts: dict[str, Mapping[str, Any]] = {}
    for term in spec.terms:
        seen = term.settings.get("teacher", "")
        name = f"{term.term} on simplified" if seen == "simplified" else term.term
        count = sum(part.split(" #")[0] == name for part in parts)
        parts[f"{name} #{count + 1}" if count else name] = term.settings
    if spec.simplifier is not None:
        parts["simplifier"] = spec.simplifier.settings
    return {(part, key): value for part, values in parts.items() for key, value in values.items()}
