"""Lanes: runs of one process side by side on its device, each in a thread and a stream of its own.

They share images and teachers; a recorded step costs Python next to nothing, so that threads do not
wait for each other. A run's numbers are the same in a lane and alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")


def in_lanes(work: Callable[[Item], None], items: Iterable[Item], lanes: int) -> None:
    """Do a piece of work for each item, so many at a time, in their order.

    After an error no further item is begun; those under way are waited for, then it is raised.
    """
    if lanes == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(lanes, "lane") as pool:
        futures = [pool.submit(_in_own_stream, work, item) for item in items]
        for waiting in wait(futures, return_when=FIRST_EXCEPTION).not_done:
            waiting.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()


def _in_own_stream(work: Callable[[Item], None], item: Item) -> None:
    stream = torch.cuda.Stream() if torch.cuda.is_available() else None
    with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
        work(item)
