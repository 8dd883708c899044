"""A recorder that emulates CUDA graphs on a CPU and fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from torch import Generator, Tensor

from skd.training import cuda_graph
from skd.training.cuda_graph import WARM_UPS, restore_tensors, run_and_restore
from skd.training.loop import Training

PHASES = ("warm-up", "capture", "end of the capture")
CAUSE = "operation not permitted when stream is capturing\nCompile with `TORCH_USE_CUDA_DSA`"
FOLLOW_UP = "operation failed due to a previous error during capture"


class EmulatedRecorder:
    """Records and replays a training's steps as a GPU would.

    A replayed step uses the epoch in which it was recorded, and a generator that was
    registered with a recording may be used by its replays alone.

    Attributes:
        epochs: of the recordings of steps, in order; with the attempt's number within the process.
        attempts: all of them, evaluations and failures included.
        registered: the generators of all recordings.
    """

    def __init__(
        self, training: Training, fails: Callable[[int], str | None] = lambda attempt: None
    ) -> None:
        """Emulate for a training.

        Args:
            training: whose steps are recorded.
            fails: returns the phase of `PHASES` in which an attempt (from 1) fails, or None.
        """
        self.training, self._fails = training, fails
        self.epochs: list[int] = []
        self.attempts = 0
        self.registered: list[Generator] = []
        training.recorder.enabled = True

    def record(
        self,
        step: Callable[[], None],
        state: Callable[[], Mapping[str, Tensor]],
        generators: Callable[[], Iterable[Generator]] = tuple,
    ) -> Callable[[], None]:
        """Replace `skd.training.cuda_graph.record_graph`."""
        self.attempts += 1
        fails = self._fails(self.attempts)
        for _ in range(WARM_UPS):
            run_and_restore(step, state)
            if fails == "warm-up":
                raise RuntimeError(CAUSE)
        places = self._places(state)
        of_this = list(generators())
        assert not {*map(id, of_this)} & {*map(id, self.registered)}, "registered before"
        self.registered += of_this
        self._capture(step, state, fails)
        if state is dict:  # an evaluation
            return step
        inputs = self.training.training_step.inputs
        recorded = inputs.epoch
        self.epochs.append(recorded)

        def replay() -> None:
            assert self._places(state) == places, "a recorded step reads the tensors it had"
            now, inputs.epoch = inputs.epoch, recorded
            step()
            inputs.epoch = now

        return replay

    def _places(self, state: Any) -> dict[str, int]:
        """Return the addresses of the tensors that a step reads or changes."""
        inputs, objective = self.training.training_step.inputs, self.training.objective
        read = {
            "order": inputs._order,
            "view numbers": inputs._view_numbers,
            "weights": objective._weights,
            "pixels": getattr(self.training.views, "_pixels", None),
            **{
                f"rate {place}": group["lr"]
                for place, group in enumerate(self.training.optimizer.param_groups)
            },
        }
        tensors = {**state(), **{name: value for name, value in read.items() if value is not None}}
        return {name: tensor.data_ptr() for name, tensor in tensors.items()}

    def _capture(self, step: Callable[[], None], state: Any, fails: str | None) -> None:
        """Run a step's Python code, which changes no tensor in a capture."""
        saved = {name: tensor.clone() for name, tensor in state().items()}
        try:
            step()
            if fails == "capture":
                raise RuntimeError(CAUSE)
        except RuntimeError as error:
            raise RuntimeError(FOLLOW_UP) from error
        finally:
            restore_tensors(state(), saved)
        if fails == "end of the capture":
            raise RuntimeError(CAUSE)


def emulate_recording(
    training: Training, monkeypatch: pytest.MonkeyPatch, fails: Any = lambda attempt: None
) -> EmulatedRecorder:
    """Record a training with an `EmulatedRecorder`, and return the recorder."""
    recorder = EmulatedRecorder(training, fails)
    monkeypatch.setattr(cuda_graph, "record_graph", recorder.record)
    return recorder
