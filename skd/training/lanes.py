"""Lanes: runs of one process side by side on its device, each in a thread of its own.

On a GPU each run has a stream of its own, too (`skd.training.cuda_graph.own_stream`). Runs share images
and teachers; a recorded step costs Python next to nothing, so that threads do not wait for each
other. A run's numbers are the same in a lane and alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")


def run_in_lanes(work: Callable[[Item], None], items: Iterable[Item], lanes: int) -> None:
    """Do a piece of work for each item, in their order, in a number of threads.

    After an error no further item is begun; those under way are waited for, then it is raised.
    """
    if lanes == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(lanes, "lane") as pool:
        futures = [pool.submit(work, item) for item in items]
        for waiting in wait(futures, return_when=FIRST_EXCEPTION).not_done:
            waiting.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()
