"""Lanes: runs of one process at the same time on its device, each one in its own thread.

On a GPU each lane also has its own stream (`skd.training.cuda_graph.own_stream`). The runs share
images and teachers. A recorded step needs hardly any Python, so that threads do not wait for each
other. The numbers of a run are the same in a lane and alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")


def run_in_lanes(work: Callable[[Item], None], items: Iterable[Item], lanes: int) -> None:
    """Call ``work`` for each item, in order, in a number of threads.

    After an error no further item is started. The error is raised when the others have ended.
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
