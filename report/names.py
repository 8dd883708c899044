"""The names that people read in the report. Files, anchors and data keep the names of the sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from skd.common.wrapped_networks import network_label
from skd.common.yaml_files import read_yaml
from skd.study.expansion import Expansion
from skd.study.presentation import in_display_order

DISPLAY_NAMES = Path(__file__).with_name("display_names.yaml")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class TeacherAndStudent(Protocol):
    """A pair, such as `report.frames.cells.PairFinding`."""

    @property
    def teacher(self) -> _Named:
        """The teacher, by its name in the sheet."""

    @property
    def student(self) -> str:
        """The student's network."""


@dataclass(frozen=True)
class Names:
    """Display names of a study's methods, teachers and networks.

    The sheet's `display` comes first, then the field's usual names (``display_names.yaml``). Any
    other name is shown as it is.

    Attributes:
        methods: display names of methods, by name.
        networks: display names of teachers and networks, by name.
    """

    methods: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, expansion: Expansion) -> Names:
        """Return the names of a study. Two of its methods, or networks, never share a name."""
        display, usual = expansion.display, _usual_names()
        names = cls(usual["methods"] | display, usual["networks"] | display)
        networks = [node.name for node in expansion.teachers]
        networks += [*(student for _, student in expansion.pairs), *expansion.networks]
        methods = {name: names.method(name) for name in expansion.methods}
        networks = {name: names.network(name) for name in networks}
        return cls(
            {**names.methods, **_distinct(methods, display)},
            {**names.networks, **_distinct(networks, display)},
        )

    def method(self, key: str) -> str:
        """Return a method's display name. A sum without a name of its own is written by parts."""
        if key in self.methods:
            return self.methods[key]
        return " + ".join(self.methods.get(part, part) for part in key.split("+"))

    def network(self, key: str) -> str:
        """Return the display name of a teacher or of a student's network."""
        return self.networks.get(key) or network_label(key)

    def pair(self, pair: TeacherAndStudent | tuple[str, str]) -> str:
        """Return a pair's display name: teacher → student.

        Args:
            pair: the pair's finding, or the names of its teacher and student.
        """
        teacher, student = pair if isinstance(pair, tuple) else (pair.teacher.name, pair.student)
        return f"{self.network(teacher)} → {self.network(student)}"


def ordered_for_display(expansion: Expansion) -> Expansion:
    """Return a study with its methods in the order in which the report shows them."""
    methods = in_display_order(expansion.methods, expansion.display)
    return expansion.model_copy(update={"methods": methods})


@cache
def _usual_names() -> dict[str, dict[str, str]]:
    return read_yaml(DISPLAY_NAMES)


def _distinct(shown: Mapping[str, str], own: Collection[str]) -> dict[str, str]:
    """Return display names of which no two are the same.

    Args:
        shown: the display names, by name.
        own: the names whose display name the sheet sets. They keep it.
    """
    uses = Counter(shown.values())
    return {
        name: text if uses[text] == 1 or name in own else network_label(name)
        for name, text in shown.items()
    }
