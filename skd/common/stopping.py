"""Stopping a training: on a signal, or at a time limit. Imports no torch."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from skd.common.errors import InterruptedRunError, TimeUpError


@contextlib.contextmanager
def handle_stop_signals(minutes: float | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether the block should stop.

    Args:
        minutes: time limit. The block should also stop after SIGTERM or the first Ctrl-C.

    Raises:
        TimeUpError: the block stopped because of the time limit.
        KeyboardInterrupt: Ctrl-C was pressed again.
    """
    received: list[int] = []
    end = None if minutes is None else time.monotonic() + 60 * minutes

    def stop(number: int, frame: object) -> None:
        # SLURM, Snakemake and `skd job` may each send a SIGTERM; only a second Ctrl-C aborts.
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    def should_stop() -> bool:
        return bool(received) or (end is not None and time.monotonic() >= end)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield should_stop
    except InterruptedRunError as error:
        if received or end is None:
            raise
        raise TimeUpError(
            f"the {minutes:g} minutes are over; run the same command again to continue"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
