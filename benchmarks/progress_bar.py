"""How far a comparison is: a bar if a person is watching, lines in a log. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from skd.common.terminal import PlainConsole, description_column

LINE_SECONDS = 10.0


class BenchmarkProgress:
    """The turns that are done, as a rich bar on standard error; lines go above it."""

    def __init__(self, progress: Progress, turns: int) -> None:
        self._progress, self._last = progress, time.monotonic()
        self._task = progress.add_task("starting", total=turns)

    def set_completed(self, turns: int) -> None:
        """So many turns are behind us: sides that failed had fewer."""
        self._progress.update(self._task, completed=turns)

    def tell(self, what: str) -> None:
        """Say what is done now; in a log, if the last line is a while ago."""
        self._progress.update(self._task, description=what, advance=1)
        watched = self._progress.console.is_terminal
        if not watched and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self.print(what)

    def print(self, text: str) -> None:
        """Write a line."""
        self._progress.console.print(text, soft_wrap=True)


@contextmanager
def show_progress(turns: int) -> Iterator[BenchmarkProgress]:
    """Show a bar of so many turns within the block."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        description_column(),
    )
    with Progress(*columns, console=PlainConsole(stderr=True), transient=True) as progress:
        yield BenchmarkProgress(progress, turns)
