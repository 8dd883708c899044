"""The processes that train one run together, each one on its part of every batch.

`torchrun` starts them, on one machine or on several, and sets their ranks. The first process writes
the folder of the run: lease, checkpoints and record. Decisions that all processes share go through
a separate process group on CPUs. Gradients go through DistributedDataParallel.
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
# Longest wait for the first process, while it reads a large file or writes a checkpoint.
TIMEOUT = timedelta(minutes=30)
# Parts of the messages of libraries after another process has ended.
LOST_CONNECTION_WORDS = ("closed by peer", "reset by peer", "broken pipe", "remote process exited")


class ProcessesError(SkdError):
    """The processes of a run do not work together. Says what to do."""


class Team(Peers, Protocol):
    """The processes of a run.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
        device: kind of device that the processes were started for; ``None``: any.
    """

    rank: int
    world_size: int
    device: str | None

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return in all processes what ``make`` returns, or raises, in the first one."""

    def all_reduce_max(self, value: int) -> int:
        """Return the maximum over all processes."""

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""


class SingleProcess(Alone):
    """A team of one process."""

    rank, world_size, device = 0, 1, None

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return the result of ``make``."""
        return make()

    def all_reduce_max(self, value: int) -> int:
        """Return the number."""
        return value

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing: the sum over one process is the tensor itself."""


class DistributedTeam:
    """The processes of the default process group, which must be initialised.

    Raises:
        ProcessesError: from each collective operation, if another process has ended.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = distributed.get_rank(), distributed.get_world_size()
        on_cpu = distributed.get_backend() == "gloo"
        self.device = "cpu" if on_cpu else "cuda"
        self._control = distributed.group.WORLD if on_cpu else distributed.new_group(backend="gloo")

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in the order of their ranks, (world_size · B, …)."""
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        with _lost_process_errors():
            distributed.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        """Return the value of the first process."""
        value = value.detach().clone()
        with _lost_process_errors():
            distributed.broadcast(value, 0)
        return value

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return in all processes what ``make`` returns, or raises, in the first one."""
        message: list[Any] = [None, None]  # result and error
        if self.rank == 0:
            try:
                message[0] = make()
            except Exception as error:
                message[1] = _portable(error)
        with _lost_process_errors():
            distributed.broadcast_object_list(message, 0, group=self._control)
        if message[1] is not None:
            raise message[1]
        return message[0]

    def all_reduce_max(self, value: int) -> int:
        """Return the maximum over all processes."""
        number = torch.tensor(value)
        with _lost_process_errors():
            distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self._control)
        return int(number)

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, with one reduction for each dtype."""
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            with _lost_process_errors():
                distributed.all_reduce(flat)
            for tensor, part in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))


def cores_per_process() -> int:
    """Return the share of the machine's cores of each process that torchrun has started on it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (allowed or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextlib.contextmanager
def join_team(device: str = "auto") -> Iterator[Team]:
    """Yield the team that `torchrun` has started, or a team of this process alone.

    Args:
        device: as for `skd.training.execution.choose_execution`.

    Raises:
        ProcessesError: the processes do not find each other, or have fewer GPUs than processes.
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
                f"each process needs its own GPU: this machine has {there} and at least "
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
    except InterruptedRunError:  # all processes raise it together
        distributed.destroy_process_group()
        raise
    except BaseException as error:
        if on_gpu:  # NCCL would wait for the others, which wait for this process
            print(printable(f"skd: {error}"), file=sys.stderr, flush=True)
            os._exit(FAILED)
        raise
    distributed.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """Return the error in a form that can be sent to other processes."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return ProcessesError(f"{type(error).__name__}: {error}")


def lost_process_error(error: Exception) -> ProcessesError | None:
    """Return an error that says that another process has ended; ``None`` if it has not.

    Gloo, NCCL and DistributedDataParallel raise errors of several types in that case.
    """
    if any(words in str(error).lower() for words in LOST_CONNECTION_WORDS):
        return ProcessesError(
            f"another process of this run has ended ({str(error).splitlines()[0]}); start it "
            "again: it resumes from its last checkpoint"
        )
    return None


@contextlib.contextmanager
def _lost_process_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if (lost := lost_process_error(error)) is not None:
            raise lost from error
        raise
