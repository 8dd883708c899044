"""The file in a run's folder that says how far the run is. It also samples the GPU's use."""

from __future__ import annotations

import contextlib
import statistics
import time

from skd.common.gpu_state import gpu_state
from skd.store.records import ProgressNote
from skd.store.store import StoreEntry

WRITE_SECONDS = 10.0


class ProgressFile:
    """Writes the `progress.json` of a run every few seconds."""

    def __init__(self, entry: StoreEntry, epochs: int, steps_per_epoch: int, on_gpu: bool) -> None:
        self.entry, self.epochs, self.steps_per_epoch = entry, epochs, steps_per_epoch
        self.on_gpu = on_gpu
        self._started = time.monotonic()
        self._written = float("-inf")
        self._first: int | None = None
        self._busy: list[float] = []

    @property
    def gpu_utilisation(self) -> float | None:
        """Mean of the samples, in percent; ``None`` on a CPU."""
        return statistics.fmean(self._busy) if self._busy else None

    def step(self, done: int, images_per_second: float) -> None:
        """Write the file if the last time was some seconds ago.

        Args:
            done: number of steps since the start of the run.
            images_per_second: speed in the current epoch.
        """
        if self._first is None:
            self._first = done - 1
        now = time.monotonic()
        if now - self._written < WRITE_SECONDS:
            return
        self._written = now
        state = gpu_state() if self.on_gpu else None
        if state is not None and state.utilisation is not None:
            self._busy.append(state.utilisation)
        per_step = (now - self._started) / (done - self._first)
        note = ProgressNote(
            epoch=done // self.steps_per_epoch,
            epochs=self.epochs,
            images_per_second=images_per_second,
            seconds_left=per_step * (self.epochs * self.steps_per_epoch - done),
            at=time.time(),
        )
        if not self.entry.folder.is_dir():  # the user has removed it
            return
        with contextlib.suppress(OSError):  # a full disk must not end the training
            self.entry.write(note)
