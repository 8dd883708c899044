"""Logs of a run's epochs for other programs, beside its record.

A log has what the record has. It is not part of the run's identity and changes no number.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from skd.common.choices import RunLog
from skd.common.errors import SkdError
from skd.common.extras import require_extra
from skd.common.files import check_writable_folder
from skd.common.terminal import printable
from skd.store.records import EpochMetrics
from skd.store.store import StoreEntry

FOLDER = "tensorboard"  # in the run's folder


class RunLogError(SkdError, ValueError):
    """The options for logs contradict each other. The message says what to do."""


class EpochLog(Protocol):
    """The log of one run."""

    def epoch(self, row: EpochMetrics) -> None:
        """Write the metrics of a finished epoch."""


@dataclass(frozen=True)
class RunLogs:
    """Which logs runs write, and where.

    Attributes:
        kind: none or tensorboard.
        folder: contains a folder for each run, with its name and identity; ``None``: the log is in
            the run's own folder.
    """

    kind: RunLog = "none"
    folder: Path | None = None

    def check(self) -> None:
        """Check that the logs can be written, before any training.

        Raises:
            MissingExtraError: the package of the log is not installed.
            RunLogError: there is a folder, but no log.
            UnwritableError: the folder cannot be written.
        """
        if self.kind == "tensorboard":
            require_extra("tensorboard", "--log tensorboard")
            if self.folder:
                check_writable_folder(self.folder)
        elif self.folder:
            raise RunLogError(f"--log-dir {self.folder} has no effect without --log tensorboard")

    def folder_of(self, entry: StoreEntry, label: str) -> Path:
        """Return the folder of a run's log."""
        if self.folder is None:
            return entry.folder / FOLDER
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '-', label)}-{entry.id}"

    @contextlib.contextmanager
    def opened(
        self, entry: StoreEntry, label: str, history: Iterable[dict[str, Any]]
    ) -> Iterator[EpochLog]:
        """Open the log of a run for the block. It starts with the epochs that are finished.

        Args:
            entry: the run's folder.
            label: the run's name.
            history: the metrics of the finished epochs. An earlier session may have logged more
                epochs than its last checkpoint has, so the log is written anew.
        """
        if self.kind == "none":
            yield NoLog()
            return
        log = TensorBoardLog(self.folder_of(entry, label))
        try:
            for row in history:
                log.epoch(EpochMetrics(**row))
            yield log
        finally:
            log.close()


class NoLog:
    """Writes nothing."""

    def epoch(self, row: EpochMetrics) -> None:
        """Do nothing."""


class TensorBoardLog:
    """Event files for TensorBoard in a folder, without those of earlier sessions.

    A log that cannot be written, on a full disk for instance, ends with a warning. The training
    continues.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        self.folder, self._writer = folder, None
        with self._warning():
            for path in folder.glob("events.out.tfevents.*"):
                path.unlink(missing_ok=True)
            # A TensorBoard that is running then drops the points that it has read.
            self._writer = SummaryWriter(str(folder), purge_step=0)

    def epoch(self, row: EpochMetrics) -> None:
        """Write the metrics of a finished epoch, and make them visible at once."""
        with self._warning():
            if self._writer is not None:
                for tag, value in scalars(row).items():
                    self._writer.add_scalar(tag, value, row.epoch)
                self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with self._warning():
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            text = f"warning: no log in {self.folder} from now on: {error}"
            print(printable(text), file=sys.stderr, flush=True)


def scalars(row: EpochMetrics) -> dict[str, float]:
    """Return an epoch's metrics by TensorBoard's tags: a group, a slash, a name."""
    return {
        **{f"train_loss/{name}": value for name, value in row.train_losses.items()},
        "accuracy/train_top1": row.train_top1,
        "accuracy/test_top1": row.test_top1,
        "accuracy/test_top5": row.test_top5,
        "test_loss/cross_entropy": row.test_loss,
        "learning_rate/student": row.learning_rate,
        **{f"diagnostics/{name}": value for name, value in row.diagnostics.items()},
        "speed/seconds": row.seconds,
        "speed/images_per_second": row.images_per_second,
    }
