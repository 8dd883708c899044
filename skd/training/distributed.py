"""The processes that train one run together, each on its part of every batch.

`torchrun` starts them, on one machine or on several, and says to each who it is. The first one
keeps the run's folder: its lease, checkpoints and record. Whatever all must agree on goes over a
group of its own that works on CPUs; gradients go through DistributedDataParallel.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed

from skd.common.errors import FAILED, InterruptedRunError, SkdError
from skd.common.terminal import printable
from skd.losses.term import Alone, Peers

Value = TypeVar("Value")
# Others may wait so long for the first one: while it reads a large file, or writes a checkpoint.
TIMEOUT = timedelta(minutes=30)
# What libraries say of a connection whose other end is gone.
LOST_CONNECTION_WORDS = ("closed by peer", "reset by peer", "broken pipe", "remote process exited")


class ProcessesError(SkdError):
    """The processes of a run are not as they must be. Says what to do."""


class Team(Peers, Protocol):
    """The processes of a run, as the training sees them."""

    rank: int
    count: int
    device: str | None  # that they can train on together; none: any

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return what the first process makes, in all of them; its error is raised in all."""

    def all_reduce_max(self, value: int) -> int:
        """Return the greatest of all processes' numbers."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""


class SingleProcess(Alone):
    """One process."""

    rank, count, device = 0, 1, None

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return what it makes."""
        return make()

    def all_reduce_max(self, value: int) -> int:
        """Return the number."""
        return value

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Leave them as they are."""


class DistributedTeam:
    """Several processes, of which this is one: of the default process group, to be set up before.

    Raises:
        ProcessesError: by what waits for the others, where one of them has ended.
    """

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        on_cpu = distributed.get_backend() == "gloo"
        self.device = "cpu" if on_cpu else "cuda"
        self._control = distributed.group.WORLD if on_cpu else distributed.new_group(backend="gloo")

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return all processes' rows, (count · B, …), in their order."""
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _others_answer():
            distributed.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the first process's value."""
        value = value.detach().clone()
        with _others_answer():
            distributed.broadcast(value, 0)
        return value

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return what the first process makes; its error is raised in all."""
        said: list[Any] = [None, None]
        if self.rank == 0:
            try:
                said[0] = make()
            except Exception as error:
                said[1] = _portable(error)
        with _others_answer():
            distributed.broadcast_object_list(said, 0, group=self._control)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def all_reduce_max(self, value: int) -> int:
        """Return the greatest of all processes' numbers."""
        number = torch.tensor(value)
        with _others_answer():
            distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self._control)
        return int(number)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message for each type."""
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            with _others_answer():
                distributed.all_reduce(flat)
            for tensor, part in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))


def cores_per_process() -> int:
    """Return this process's share of the cores that it and its like on the machine may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (allowed or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextlib.contextmanager
def join_team(device: str = "auto") -> Iterator[Team]:
    """Within, yield the processes that `torchrun` has started, or the one that there is.

    Args:
        device: as for `skd.training.execution.choose_execution`.

    Raises:
        ProcessesError: they do not find each other, or have no GPU each.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield SingleProcess()
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= there:
            raise ProcessesError(
                f"each process needs a GPU of its own: this machine has {there} and at least "
                f"{place + 1} processes; torchrun --nproc-per-node {there}"
            )
        torch.cuda.set_device(place)
    try:
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ProcessesError(
            f"the {count} processes do not find each other: {error}; start them with torchrun"
        ) from error
    try:
        yield DistributedTeam()
    except InterruptedRunError:  # of all at once
        distributed.destroy_process_group()
        raise
    except BaseException as error:
        if on_gpu:  # NCCL would wait for processes that wait for this one
            print(printable(f"skd: {error}"), file=sys.stderr, flush=True)
            os._exit(FAILED)
        raise
    distributed.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """Return an error that can be told to other processes."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return ProcessesError(f"{type(error).__name__}: {error}")


def lost_process_error(error: Exception) -> ProcessesError | None:
    """Return what an error means if it says that another process is gone, else none.

    Gloo, NCCL and DistributedDataParallel say so by errors of several types.
    """
    if any(words in str(error).lower() for words in LOST_CONNECTION_WORDS):
        return ProcessesError(
            f"another process of this run has ended ({str(error).splitlines()[0]}); started again, "
            "it goes on from its last checkpoint"
        )
    return None


@contextlib.contextmanager
def _others_answer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if (ended := lost_process_error(error)) is not None:
            raise ended from error
        raise
