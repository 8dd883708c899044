"""What is shown on a terminal: data as they are, never as markup or as the terminal's commands.

Titles, names and reasons come from sheets, files and other people's programs. Rich would read
brackets in them as markup and ``:name:`` as an emoji, and a terminal obeys escape sequences.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return text with each control character but line breaks and tabs replaced by U+FFFD.

    Half of a surrogate pair, which no encoding can write, is replaced too.
    """
    if text.isprintable():
        return text
    return "".join(
        REPLACEMENT if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text
    )


class PlainConsole(Console):
    """A Rich console that shows texts as they are; styles are given as styles, not as markup."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments to write; Rich's own commands to the terminal are left alone."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def description_column() -> TextColumn:
    """Return the column of a progress bar that says what is done now."""
    return TextColumn("{task.description}", markup=False)
