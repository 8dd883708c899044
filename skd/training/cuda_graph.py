"""Training steps recorded as CUDA graphs: one launch replays all kernels of a step, without Python.

A recorded step reads and writes the tensors that it was recorded with. What changes from step to
step is therefore in tensors that keep their addresses. Everything of a run, from the construction
of its networks to its last replay, uses one stream: autograd remembers the stream on which a
parameter was first used.
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

RecordResult = TypeVar("RecordResult")

WARM_UPS = 3  # as PyTorch advises: libraries initialise themselves at their first calls
ATTEMPTS = 2
# Only one lane of a process records or compiles at a time.
CAPTURE_LOCK = threading.RLock()
# Graphs whose capture failed: PyTorch's allocator may still refer to them.
_FAILED: list[torch.cuda.CUDAGraph] = []
_OF_THREAD = threading.local()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the block on this thread's CUDA stream.

    On a CPU, or if another stream than the default one is current, nothing changes. The default
    stream cannot be captured. PyTorch has 32 other streams and hands them out in turn, so a new
    stream for each run could be the stream of another lane.
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
    """Return a function that replays a step on the current stream. Its ``state`` does not change.

    The step first runs a few times, so that libraries initialise themselves; the tensors that it
    changes are then restored. A failure leaves nothing behind except the generators, which no
    other step may use.

    Args:
        step: queues work on the GPU and never reads a value back.
        state: returns all tensors that the step changes, by name. A tensor that the step creates
            starts from 0.
        generators: returns the generators that the step draws from. From now on they belong to
            this recording; the caller seeds them before each replay.

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

    ``torch.cuda.graph`` would first wait for the whole device, and thus for all other lanes.
    """
    cause: BaseException | None = None
    with _without_garbage_collection():
        # thread_local: other lanes may allocate memory during the capture.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            step()
        except BaseException as error:
            cause = error
        try:
            graph.capture_end()
        except RuntimeError as error:  # CUDA ends a failed capture with another error
            raise error from cause
    if cause is not None:
        raise cause


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: a capture cannot free memory of other streams."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _release(graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
    """Release the memory of a failed capture."""
    device = torch.cuda.current_device()
    for release in (
        lambda: torch._C._cuda_endAllocateToPool(device, pool),
        lambda: torch._C._cuda_releasePool(device, pool),
    ):
        with contextlib.suppress(RuntimeError):  # the capture may have failed before that
            release()
    _FAILED.append(graph)


def run_and_restore(step: Callable[[], None], state: Callable[[], Mapping[str, Tensor]]) -> None:
    """Run a step and restore the tensors that it changed. Its initialisations remain.

    Args:
        step: what to run.
        state: returns all tensors that the step changes, by name.
    """
    # Without detach, autograd would tie the weights to the stream that is current now.
    saved = {name: tensor.detach().clone() for name, tensor in state().items()}
    try:
        step()
    finally:
        restore_tensors(state(), saved)


@torch.no_grad()
def restore_tensors(state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Restore the values of tensors in place; tensors that are not in ``saved`` become 0."""
    for name, tensor in state.items():
        if name in saved:
            tensor.copy_(saved[name])
        else:
            tensor.zero_()


def root_cause(error: BaseException) -> str:
    """Return the first line of the error at the start of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class RecordedStep:
    """A recorded step, and the generators that only its replays use."""

    replay: Callable[[], None]
    draws: Draws


class GraphRecorder:
    """Attempts of a training to record its "step", its "last batch" and its "evaluation".

    Args:
        enabled: whether anything is recorded.
        after_failure: called after each failed attempt, to release what the attempt left.
    """

    def __init__(self, enabled: bool, after_failure: Callable[[], None]) -> None:
        self.enabled, self._after_failure = enabled, after_failure
        self._recorded: list[str] = []
        # First cause of a failure, by name.
        self._retried: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def try_record(self, name: str, attempt: Callable[[], RecordResult]) -> RecordResult | None:
        """Return the result of the first successful attempt; ``None`` if all attempts fail.

        Args:
            name: what is recorded. After a failure, a name is not tried again.
            attempt: records it; raises RuntimeError if that fails.
        """
        if not self.enabled or name in self._failed:
            return None
        causes = []
        for _ in range(ATTEMPTS):
            try:
                recorded = attempt()
            except RuntimeError as error:
                causes.append(root_cause(error))
            else:
                self._recorded.append(name)
                if causes:
                    self._retried.setdefault(name, causes[0])
                return recorded
            self._after_failure()
        self._failed[name] = causes[0]
        return None

    def __str__(self) -> str:
        """Return which parts were captured as CUDA graphs, and why others were not.

        The text goes into the run's record.json.
        """
        steps = {"step", "last batch"}
        if "step" in self._failed or not steps & {*self._recorded}:
            cause = next(iter(self._failed.values()), None)
            return "not recorded" + (f": {cause}" if cause else "")
        notes = [f"the {name} at the second attempt, after: {cause}"
                 for name, cause in self._retried.items()]  # fmt: skip
        notes += [f"the {name} not recorded: {cause}" for name, cause in self._failed.items()]
        return "; ".join(["recorded as a CUDA graph", *notes])


class RecordedSteps:
    """The steps of a training: replayed if they can be recorded, else run eagerly.

    There is one recording for each size of a batch. It is valid until `clear`.

    Args:
        recorder: attempts the recordings.
        whole_batch: images in a whole batch.
        run_step: trains on a batch of a size, with random numbers from the given draws.
        changed_tensors: returns all tensors that a step changes, by name.
        new_draws: returns new generators. Each recording has its own.

    Attributes:
        draws: what eager steps draw from.
    """

    def __init__(
        self,
        recorder: GraphRecorder,
        whole_batch: int,
        run_step: Callable[[int, Draws], None],
        changed_tensors: Callable[[], Mapping[str, Tensor]],
        new_draws: Callable[[], Draws],
    ) -> None:
        self._recorder, self._whole_batch = recorder, whole_batch
        self._run_step, self._changed_tensors = run_step, changed_tensors
        self._new_draws, self.draws = new_draws, new_draws()
        self._by_size: dict[int, RecordedStep | None] = {}

    def run(self, size: int, epoch: int, step: int) -> None:
        """Train on a batch of a size: the given step (from 0) of an epoch (from 1)."""
        if size not in self._by_size:
            name = "step" if size == self._whole_batch else "last batch"
            self._by_size[size] = self._recorder.try_record(
                name, lambda: self._record(size, epoch, step)
            )
        recorded = self._by_size[size]
        draws = self.draws if recorded is None else recorded.draws
        draws.set_step(epoch, step)
        if recorded is None:
            self._run_step(size, draws)
        else:
            recorded.replay()

    def clear(self) -> None:
        """Drop all recordings."""
        self._by_size.clear()

    def _record(self, size: int, epoch: int, step: int) -> RecordedStep:
        draws = self._new_draws().set_step(epoch, step)
        replay = record_graph(
            lambda: self._run_step(size, draws), self._changed_tensors, lambda: draws.generators
        )
        return RecordedStep(replay, draws)


class RecordedEvaluation:
    """The evaluation of a training: recorded at the first call if possible, else run eagerly.

    Args:
        recorder: attempts the recording.
        evaluate: returns the logits of the test images, (M, C).
        recordable: whether an evaluation is work for the device alone.

    Attributes:
        logits: result of the last evaluation; ``None`` before the first one.
    """

    def __init__(
        self, recorder: GraphRecorder, evaluate: Callable[[], Tensor], recordable: bool
    ) -> None:
        self._recorder, self._evaluate, self._recordable = recorder, evaluate, recordable
        self._run: Callable[[], None] | None = None
        self.logits: Tensor | None = None

    def run(self) -> Tensor:
        """Return the logits of the test images, (M, C). The next call overwrites them."""
        if self._run is None:
            recorded = None
            if self._recordable:
                recorded = self._recorder.try_record(
                    "evaluation", lambda: record_graph(self._run_eagerly, dict)
                )
            self._run = recorded or self._run_eagerly
        self._run()
        assert self.logits is not None
        return self.logits

    def _run_eagerly(self) -> None:
        self.logits = self._evaluate()
