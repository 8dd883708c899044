"""Asking a training to stop: by a signal, or because its time is up. Imports no torch."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from skd.common.errors import InterruptedRunError, TimeUpError


@contextlib.contextmanager
def handle_stop_signals(minutes: float | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether the block should stop.

    It should after SIGTERM, the first Ctrl-C, or the given number of minutes.

    Raises:
        TimeUpError: the block was interrupted, and no signal was the reason.
    """
    received: list[int] = []
    end = None if minutes is None else time.monotonic() + 60 * minutes

    def stop(number: int, frame: object) -> None:
        # SLURM, Snakemake and `skd job` may each send a SIGTERM: only Ctrl-C twice is impatience.
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def stopping() -> bool:
        return bool(received) or (end is not None and time.monotonic() >= end)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    except InterruptedRunError as error:
        if received or end is None:
            raise
        raise TimeUpError(f"the {minutes:g} minutes are over; the same command goes on") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
