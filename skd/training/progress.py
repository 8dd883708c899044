"""Display of a run's progress: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Protocol, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from skd.common.terminal import PlainConsole, description_column, printable
from skd.store.records import EpochMetrics

LINE_SECONDS = 10.0
BAR_SECONDS = 0.5


class RunProgress(Protocol):
    """Display of one run."""

    def __enter__(self) -> Self:
        """Start the display."""

    def __exit__(self, *error: object) -> None:
        """End the display."""

    def step(self, done: int, loss: float | None, images_per_second: float) -> None:
        """Show the number of steps since the start, the loss if known, and the speed."""

    def epoch(self, row: EpochMetrics) -> None:
        """Show the metrics of a finished epoch."""

    def note(self, text: str) -> None:
        """Print a line."""


def run_progress(
    label: str, epochs: int, steps: int, alone: bool = True, visible: bool = True
) -> RunProgress:
    """Return a bar if standard error is a terminal that no other run uses, else lines.

    Args:
        label: name of the run.
        epochs: number of epochs of the run.
        steps: number of steps of the run.
        alone: whether the process trains no other run at the same time.
        visible: false: show nothing. Only the first process of a run is visible.
    """
    if not visible:
        return NoProgress()
    kind = RunProgressBar if alone and sys.stderr.isatty() else RunProgressLines
    return kind(label, epochs, steps)


def is_loss_due(last: float) -> bool:
    """Return whether to read the running loss, which waits for the device."""
    return time.monotonic() - last >= BAR_SECONDS


class NoProgress:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, done: int, loss: float | None, images_per_second: float) -> None:
        """Do nothing."""

    def epoch(self, row: EpochMetrics) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class RunProgressLines:
    """Prints a line every few seconds, and one for the last epoch."""

    def __init__(self, label: str, epochs: int, steps: int) -> None:
        self.label, self.epochs, self.steps = label, epochs, steps
        self._started = self._last = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, done: int, loss: float | None, images_per_second: float) -> None:
        """Print a line if the last one was some seconds ago."""
        self._first = done - 1 if self._first is None else self._first
        if time.monotonic() - self._last >= LINE_SECONDS:
            loss_text = "" if loss is None else f"  loss {loss:.3f}"
            self._line(
                f"step {done}/{self.steps}{loss_text}  {images_per_second:.0f} images/s"
                f"  {self._left(done)}"
            )

    def epoch(self, row: EpochMetrics) -> None:
        """Print a line if the last one was some seconds ago, or this is the last epoch."""
        if row.epoch == self.epochs or time.monotonic() - self._last >= LINE_SECONDS:
            self._line(_summary(row, self.epochs))

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        with contextlib.suppress(OSError):  # the reader of a pipe may have ended
            print(printable(f"{self.label}: {text}"), file=sys.stderr, flush=True)

    def _left(self, done: int) -> str:
        passed = done - (self._first or 0)
        seconds = (time.monotonic() - self._started) / max(passed, 1) * (self.steps - done)
        hours, rest = divmod(int(seconds), 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02} left"


class RunProgressBar:
    """A rich progress bar."""

    def __init__(self, label: str, epochs: int, steps: int) -> None:
        self.epochs = epochs
        self._bar = Progress(
            description_column(),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=PlainConsole(stderr=True),
        )
        self._task = self._bar.add_task(label, total=steps, values="")
        self._row, self._running = "", ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self, done: int, loss: float | None, images_per_second: float) -> None:
        """Move the bar."""
        if loss is not None:
            self._running = f"loss {loss:.3f}  {images_per_second:.0f} images/s  "
        self._bar.update(self._task, completed=done, values=self._running + self._row)

    def epoch(self, row: EpochMetrics) -> None:
        """Show the accuracy of the epoch from now on."""
        self._row = f"epoch {row.epoch}/{self.epochs}: test {row.test_top1:.2f} %"

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False)


def _summary(row: EpochMetrics, epochs: int) -> str:
    return (
        f"epoch {row.epoch}/{epochs}  loss {row.train_losses['total']:.3f}  "
        f"train {row.train_top1:.2f} %  test {row.test_top1:.2f} %  "
        f"{row.images_per_second:.0f} images/s  {row.seconds:.1f} s"
    )
