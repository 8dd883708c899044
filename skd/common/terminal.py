"""Output on a terminal: text is printed literally, never as markup or terminal commands.

Titles, names and reasons come from sheets, files and other programs. Rich would read brackets in
them as markup and ``:name:`` as an emoji, and a terminal would execute escape sequences.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment

from skd.common.printable import printable


class PlainConsole(Console):
    """A Rich console that prints text literally; styles are passed as styles, not as markup."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments to write, Rich's own terminal commands unchanged."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def description_column() -> TextColumn:
    """Return the progress bar's column with the description of the task."""
    return TextColumn("{task.description}", markup=False)


def format_duration(seconds: float) -> str:
    """Return seconds as ``H:MM:SS``."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
