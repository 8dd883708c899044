"""The progress of a benchmark: a bar on a terminal, lines in a log. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from skd.common.terminal import PlainConsole, description_column

LINE_SECONDS = 10.0


class BenchmarkProgress:
    """A rich progress bar of turns on standard error. Printed lines appear above it."""

    def __init__(self, progress: Progress, turns: int) -> None:
        self._progress, self._last = progress, time.monotonic()
        self._task = progress.add_task("starting", total=turns)

    def set_completed(self, turns: int) -> None:
        """Set the number of completed turns. Failed sides have fewer turns than planned."""
        self._progress.update(self._task, completed=turns)

    def update(self, activity: str) -> None:
        """Start the next turn. A log gets a line at most every `LINE_SECONDS` seconds."""
        self._progress.update(self._task, description=activity, advance=1)
        on_terminal = self._progress.console.is_terminal
        if not on_terminal and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self.print(activity)

    def print(self, text: str) -> None:
        """Print a line."""
        self._progress.console.print(text, soft_wrap=True)


@contextmanager
def show_progress(turns: int) -> Iterator[BenchmarkProgress]:
    """Show a progress bar of ``turns`` turns within the block."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        description_column(),
    )
    with Progress(*columns, console=PlainConsole(stderr=True), transient=True) as progress:
        yield BenchmarkProgress(progress, turns)
