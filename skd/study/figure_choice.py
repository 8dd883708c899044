"""The methods that a sheet chooses for detailed figures. Not part of an identity. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from skd.common.errors import suggest
from skd.common.frozen import FrozenModel

USUAL_METHODS = ("student", "kd", "skd")  # the references, as far as a study has them


class FigureChoice(FrozenModel):
    """What a sheet chooses for the report's figures."""

    methods: tuple[str, ...] | None = Field(
        None,
        description="methods in the figures of calibration, classes, correlations and features; "
        "default: student, kd, skd and the last method of the sheet",
    )

    def problem(self, methods: Sequence[str]) -> str | None:
        """Return what is wrong with the choice in a study with these methods, or ``None``."""
        chosen = self.methods
        if chosen is None:
            return None
        if not chosen:
            return "methods: is empty; name a method, or leave the key out"
        for place, method in enumerate(chosen):
            if method not in methods:
                return f"methods: unknown method '{method}'{suggest(method, methods)}"
            if method in chosen[:place]:
                return f"methods: named twice: {method}"
        return None

    def shown(self, methods: Sequence[str]) -> tuple[str, ...]:
        """Return the methods that detailed figures show.

        Args:
            methods: the study's methods, in the order of the sheet.
        """
        if self.methods is not None:
            return self.methods
        usual = [method for method in USUAL_METHODS if method in methods]
        return tuple(dict.fromkeys([*usual, *methods[-1:]]))
