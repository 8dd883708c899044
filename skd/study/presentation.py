"""What a sheet says about how its results are shown. Not part of any identity. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from skd.common.errors import suggest
from skd.common.frozen import FrozenModel
from skd.common.printable import printable

Layout = Literal["auto", "methods-as-rows", "methods-as-columns"]
Spread = Literal["sd", "interval", "none"]

MAX_DISPLAY_LENGTH = 60  # characters


class TableOptions(FrozenModel):
    """How the report lays out its tables of results."""

    layout: Layout = Field(
        "auto",
        description="methods-as-rows: a column for each pair; methods-as-columns: a row for each "
        "pair; auto: methods as rows, and means over pairs in the main table if there are many",
    )
    spread: Spread = Field(
        "sd",
        description="what stands after a mean: sd, the sample standard deviation over seeds; "
        "interval, half the width of the mean's 95 % interval; none, nothing",
    )


def display_problem(
    display: Mapping[str, str], methods: Iterable[str], networks: Iterable[str]
) -> str | None:
    """Return what is wrong with a sheet's display names; ``None`` if nothing is.

    Args:
        display: the display names, by name.
        methods: the study's methods.
        networks: the names of its teachers, students and networks.
    """
    known = (dict.fromkeys(methods), dict.fromkeys(networks))
    for name, shown in display.items():
        if not any(name in names for names in known):
            return f"unknown name '{name}'{suggest(name, [*known[0], *known[1]])}"
        if not shown or shown != " ".join(printable(shown).split()):
            return f"{name}: {shown!r} is not one line of text without spaces at its ends"
        if len(shown) > MAX_DISPLAY_LENGTH:
            return f"{name}: has {len(shown)} characters; allowed: {MAX_DISPLAY_LENGTH}"
    for names in known:
        users = {name: name for name in names if name not in display}
        for name in (name for name in display if name in names):
            if (other := users.setdefault(display[name], name)) != name:
                return f"{other} and {name} have the same display name; give each its own"
    return None


def in_display_order(methods: Sequence[str], display: Iterable[str]) -> tuple[str, ...]:
    """Return a study's methods with those that ``display`` lists in its order.

    They share the places that they have among the study's methods. The others do not move.
    """
    listed = [name for name in dict.fromkeys(display) if name in methods]
    ordered = iter(listed)
    return tuple(next(ordered) if method in listed else method for method in methods)
