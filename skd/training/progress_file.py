"""What a run under way tells others through its folder: how far it is, and how busy its GPU."""

from __future__ import annotations

import contextlib
import statistics
import time

from skd.common.gpu_state import gpu_state
from skd.store.records import ProgressNote
from skd.store.store import StoreEntry

WRITE_SECONDS = 10.0


class ProgressFile:
    """Writes a run's `progress.json` every few seconds."""

    def __init__(self, entry: StoreEntry, epochs: int, steps_per_epoch: int, on_gpu: bool) -> None:
        self.entry, self.epochs, self.steps_per_epoch = entry, epochs, steps_per_epoch
        self.on_gpu = on_gpu
        self._begun = time.monotonic()
        self._told = float("-inf")
        self._first: int | None = None
        self._busy: list[float] = []

    @property
    def gpu_utilisation(self) -> float | None:
        """The mean of what was sampled, in percent; none on a CPU."""
        return statistics.fmean(self._busy) if self._busy else None

    def step(self, done: int, images_per_second: float) -> None:
        """So many steps are done, of all epochs; tells it if the last time is a while ago."""
        if self._first is None:
            self._first = done - 1
        now = time.monotonic()
        if now - self._told < WRITE_SECONDS:
            return
        self._told = now
        state = gpu_state() if self.on_gpu else None
        if state is not None and state.utilisation is not None:
            self._busy.append(state.utilisation)
        per_step = (now - self._begun) / (done - self._first)
        told = ProgressNote(
            epoch=done // self.steps_per_epoch,
            epochs=self.epochs,
            images_per_second=images_per_second,
            seconds_left=per_step * (self.epochs * self.steps_per_epoch - done),
            at=time.time(),
        )
        if not self.entry.folder.is_dir():  # removed by somebody: not to be made anew
            return
        with contextlib.suppress(OSError):  # a full disk must not end the training
            self.entry.write(told)
