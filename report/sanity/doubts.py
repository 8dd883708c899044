"""A reason to doubt a study's results, as the checks return it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from report.formats import join_names

Severity = Literal["fatal", "caution", "note"]
MAX_NAMED = 4  # more names are counted


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt the results.

    Attributes:
        kind: the check that found it, such as ``teacher-at-chance``.
        severity: ``fatal``: the study does not answer its question. ``caution``: some of its
            numbers do not mean what they seem to. ``note``: for whoever repeats the study.
        text: what is wrong, and what follows.
        details: lines with the single cases.
    """

    kind: str
    severity: Severity
    text: str
    details: tuple[str, ...] = ()

    @property
    def paragraph(self) -> str:
        """The text with its details, for formats that cannot fold them; only a few of them."""
        if not self.details:
            return self.text
        shown, more = self.details[:MAX_NAMED], len(self.details) - MAX_NAMED
        return f"{self.text} {'; '.join(shown)}{f'; and {more} more' if more > 0 else ''}."


def name_some(names: Sequence[str], most: int = MAX_NAMED) -> str:
    """Return names as a phrase: the first few, and the number of the others."""
    if len(names) <= most:
        return join_names(list(names))
    return f"{', '.join(names[:most])} and {len(names) - most} more"
