"""Recording a step as a CUDA graph: one launch replays all its kernels, with no Python between.

A recorded step reads and writes the tensors it was recorded with, so all that changes from step to
step lies in tensors that keep their place. Everything of a run, from building its networks to its
last replay, happens on one stream: autograd remembers the stream a parameter was first used on.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Generator, Tensor

from skd.randomness import Draws

RecordResult = TypeVar("Made")

WARM_UPS = 3  # as PyTorch advises: libraries set themselves up at their first calls
ATTEMPTS = 2
# The lanes of a process record and compile one at a time.
CAPTURE_LOCK = threading.RLock()
# Graphs whose capture failed: PyTorch's allocator may still refer to them.
_FAILED: list[torch.cuda.CUDAGraph] = []
_OF_THREAD = threading.local()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the block on this thread's CUDA stream; nothing changes on a CPU or within another one.

    The default stream cannot be captured. PyTorch has 32 others and hands them out in turns, so
    that a new one for each run could be that of a lane under way.
    """
    if device.type != "cuda" or torch.cuda.current_stream() != torch.cuda.default_stream():
        yield
        return
    if not hasattr(_OF_THREAD, "stream"):
        _OF_THREAD.stream = torch.cuda.Stream()
    stream = _OF_THREAD.stream
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def record_graph(
    step: Callable[[], None],
    state: Callable[[], Mapping[str, Tensor]],
    generators: Callable[[], Iterable[Generator]] = tuple,
) -> Callable[[], None]:
    """Return a function that replays a step on the current stream; ``state`` is left as it was.

    The step is run a few times first, so that libraries set themselves up; what it moves is put
    back. A failure leaves nothing behind but the generators, which no other step may use.

    Args:
        step: works on the GPU without asking it anything.
        state: returns all tensors that a step moves, by name. A tensor that the step creates
            starts from 0.
        generators: returns the generators that the step draws from. They belong to this recording
            from now on, and are seeded before each replay.

    Raises:
        RuntimeError: CUDA or PyTorch cannot record the step.
    """
    with CAPTURE_LOCK:
        for _ in range(WARM_UPS):
            run_and_restore(step, state)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        for generator in generators():
            graph.register_generator_state(generator)
        try:
            _capture(graph, pool, step)
        except BaseException:
            _release(graph, pool)
            raise
    return graph.replay


def _capture(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], step: Callable[[], None]) -> None:
    """Capture a step on the current stream.

    ``torch.cuda.graph`` would first wait for the whole device, and so for all other lanes.
    """
    cause: BaseException | None = None
    with _without_garbage_collection():
        # Other lanes may allocate meanwhile: hence thread_local.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            step()
        except BaseException as error:
            cause = error
        try:
            graph.capture_end()
        except RuntimeError as follows:  # CUDA ends a failed capture with an error of its own
            raise follows from cause
    if cause is not None:
        raise cause


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Collect no garbage within the block: a capture cannot free other streams' memory."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _release(graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
    """Give up the memory of a failed capture."""
    device = torch.cuda.current_device()
    for release in (
        lambda: torch._C._cuda_endAllocateToPool(device, pool),
        lambda: torch._C._cuda_releasePool(device, pool),
    ):
        with contextlib.suppress(RuntimeError):  # the capture may have come less far
            release()
    _FAILED.append(graph)


def run_and_restore(step: Callable[[], None], state: Callable[[], Mapping[str, Tensor]]) -> None:
    """Run a step and put back what it moved: what it sets up for the first time stays."""
    # Not as part of an autograd graph, which would tie the weights to the stream of this moment.
    kept = {name: tensor.detach().clone() for name, tensor in state().items()}
    try:
        step()
    finally:
        restore_tensors(state(), kept)


@torch.no_grad()
def restore_tensors(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Give tensors the values they had, in place; those that are new become 0."""
    for name, tensor in state.items():
        if name in kept:
            tensor.copy_(kept[name])
        else:
            tensor.zero_()


def root_cause(error: BaseException) -> str:
    """Return the first line of the error that an error was raised from, or of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class RecordedStep:
    """A recorded step, and the generators that only its replays draw from."""

    replay: Callable[[], None]
    draws: Draws


class GraphRecorder:
    """A training's attempts to record: its "step", that of its "last batch", its "evaluation".

    Args:
        enabled: false: nothing is tried.
        after_failure: called after each failed attempt, to give up what it left.
    """

    def __init__(self, enabled: bool, after_failure: Callable[[], None]) -> None:
        self.enabled, self._after_failure = enabled, after_failure
        self._recorded: list[str] = []
        # By name, the first cause of a failure.
        self._retried: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def make(self, name: str, attempt: Callable[[], RecordResult]) -> RecordResult | None:
        """Return what one of a few attempts makes; None where all of them fail.

        Args:
            name: of what is recorded. What failed under this name is not tried again.
            attempt: records it; raises RuntimeError where that fails.
        """
        if not self.enabled or name in self._failed:
            return None
        causes = []
        for _ in range(ATTEMPTS):
            try:
                made = attempt()
            except RuntimeError as error:
                causes.append(root_cause(error))
            else:
                self._recorded.append(name)
                if causes:
                    self._retried.setdefault(name, causes[0])
                return made
            self._after_failure()
        self._failed[name] = causes[0]
        return None

    def __str__(self) -> str:
        """Say what was recorded and why the rest was not, for the run's record."""
        steps = {"step", "last batch"}
        if "step" in self._failed or not steps & {*self._recorded}:
            cause = next(iter(self._failed.values()), None)
            return "not recorded" + (f": {cause}" if cause else "")
        notes = [f"the {name} at the second attempt, after: {cause}"
                 for name, cause in self._retried.items()]  # fmt: skip
        notes += [f"the {name} not recorded: {cause}" for name, cause in self._failed.items()]
        return "; ".join(["recorded as a CUDA graph", *notes])
