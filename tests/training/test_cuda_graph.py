"""Recorded steps equal eager ones, and a failed recording only makes a step slow."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from skd.losses.term import Batch, Term, TermSettings
from skd.training.cuda_graph import GraphRecorder, _capture, own_stream, root_cause, run_and_restore
from skd.training.loop import Training
from skd.training.teacher import LiveTeacher
from tests.builders.emulated_cuda_graph import PHASES, EmulatedRecorder, emulate_recording
from tests.builders.steps import (
    METHODS,
    assert_same_bits,
    few_images,
    train,
    trained_teacher,
    training_of,
)

CAUSE = "operation not permitted when stream is capturing"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LiveTeacher:
    return trained_teacher(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("method", METHODS)
def test_recorded_steps_are_the_eager_ones_bit_for_bit(
    method: str, teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size of batch is recorded once, whatever the epoch changes in the losses."""
    eager = train(training_of(method, teacher))
    training = training_of(method, teacher)
    recorder = emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training))
    assert recorder.epochs == [1, 1]
    assert str(training.recorder) == "recorded as a CUDA graph"


def test_a_loss_that_reads_the_epoch_itself_is_recorded_again_in_each(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadsEpoch(Term):
        reads_epoch = True

        def forward(self, batch: Batch) -> torch.Tensor:
            return batch.epoch * batch.student.logits.square().mean()

    def with_term() -> Training:
        training = training_of("student", teacher)
        training.objective.terms["cross_entropy"] = ReadsEpoch(TermSettings(), None)
        return training

    eager, training = train(with_term()), with_term()
    recorder = emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training))
    assert recorder.epochs == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_recorded_step_continues_from_any_checkpoint(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(training_of("skd+crd", teacher))
    half = training_of("skd+crd", teacher)
    emulate_recording(half, monkeypatch)
    train(half, 3)
    resumed = training_of("skd+crd", teacher)
    resumed.load_state(half.state())
    emulate_recording(resumed, monkeypatch)
    assert_same_bits(whole, train(resumed))


def at(attempt: int, phase: str) -> Callable[[int], str | None]:
    return lambda number: phase if number == attempt else None


@pytest.mark.parametrize("method", ["dkd", "skd+crd", "ctkd"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_failure_is_followed_by_another_attempt(
    method: str, phase: str, attempt: int, teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first recording is of whole batches, the second of the last one, then the evaluation."""
    eager = train(training_of(method, teacher))
    training = training_of(method, teacher)
    emulate_recording(training, monkeypatch, at(attempt, phase))
    assert_same_bits(eager, train(training))
    name = ["step", "last batch", "evaluation"][attempt - 1]
    assert str(training.recorder) == (
        f"recorded as a CUDA graph; the {name} at the second attempt, after: {CAUSE}"
    )


@pytest.mark.parametrize("method", ["dkd", "skd+crd"])
@pytest.mark.parametrize("phase", PHASES)
def test_what_cannot_be_recorded_is_trained_eagerly(
    method: str, phase: str, teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(training_of(method, teacher))
    training = training_of(method, teacher)
    recorder = emulate_recording(training, monkeypatch, lambda attempt: phase)
    assert_same_bits(eager, train(training))
    assert recorder.attempts == 6  # two for each of whole batches, the last one, the evaluation
    assert str(training.recorder).startswith(f"not recorded: {CAUSE}")


@pytest.mark.parametrize("phase", PHASES)
def test_a_last_batch_that_cannot_be_recorded_keeps_the_others_recording(
    phase: str, teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(training_of("crd", teacher))
    training = training_of("crd", teacher)
    emulate_recording(training, monkeypatch, lambda attempt: phase if attempt in (2, 3) else None)
    assert_same_bits(eager, train(training))
    assert str(training.recorder) == (
        f"recorded as a CUDA graph; the last batch not recorded: {CAUSE}"
    )


@pytest.mark.parametrize("fails", [lambda attempt: None, at(1, "capture"), at(2, "capture")])
def test_generators_of_a_recording_are_its_own(
    fails: Callable[[int], str | None], teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of("skd+crd", teacher)
    recorder = emulate_recording(training, monkeypatch, fails)  # checks it at each recording
    train(training)
    assert len(recorder.registered) >= 2
    own = {id(generator) for generator in training._steps.draws.generators}
    assert not own & {id(generator) for generator in recorder.registered}


def test_a_failure_leaves_no_gradients_of_its_memory(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of("kd", teacher)
    without_gradients: list[bool] = []
    make = EmulatedRecorder.record

    def record(recorder: EmulatedRecorder, *arguments: object) -> Callable[[], None]:
        without_gradients.append(
            all(weight.grad is None for weight in training.student.parameters())
        )
        return make(recorder, *arguments)

    monkeypatch.setattr(EmulatedRecorder, "record", record)
    emulate_recording(training, monkeypatch, lambda attempt: "capture")
    training.advance()
    assert without_gradients == [True, True]


def test_the_first_cause_is_what_an_error_was_raised_from() -> None:
    def fail() -> None:
        try:
            raise RuntimeError("the cause\nand what it says besides")
        except RuntimeError as cause:
            raise RuntimeError("what followed") from cause

    with pytest.raises(RuntimeError, match="what followed") as caught:
        fail()
    assert root_cause(caught.value) == "the cause"
    try:
        {}["cache key"]
    except KeyError:  # handled: not the cause of the next error
        with pytest.raises(RuntimeError) as caught:
            raise RuntimeError("the operation cannot be captured")  # noqa: B904
    assert root_cause(caught.value) == "the operation cannot be captured"
    assert root_cause(ValueError()) == "ValueError"


class Graph:
    """A CUDA graph whose capture fails at its start or its end as requested."""

    def __init__(self, begins: bool = True, ends: bool = True) -> None:
        self.begins, self.ends = begins, ends

    def capture_begin(self, **_: object) -> None:
        assert not gc.isenabled()
        if not self.begins:
            raise RuntimeError("cannot begin")

    def capture_end(self) -> None:
        if not self.ends:
            raise RuntimeError("previous error during capture")


def broken() -> None:
    raise RuntimeError("asks the device")


@pytest.mark.parametrize(
    ("graph", "step", "message"),
    [
        (Graph(), broken, "asks the device"),
        (Graph(ends=False), broken, "asks the device"),
        (Graph(ends=False), lambda: None, "previous error during capture"),
        (Graph(begins=False), lambda: None, "cannot begin"),
    ],
)
def test_a_capture_that_fails_says_why_and_leaves_the_garbage_collector_on(
    graph: Graph, step: Callable[[], None], message: str
) -> None:
    with pytest.raises(RuntimeError) as caught:
        _capture(graph, (0, 0), step)
    assert root_cause(caught.value) == message
    assert gc.isenabled()


def test_only_recorded_steps_are_called_recorded() -> None:
    recordings = GraphRecorder(True, after_failure=lambda: None)
    assert recordings.try_record("step", broken) is None
    assert recordings.try_record("evaluation", lambda: "recorded") == "recorded"
    assert str(recordings) == "not recorded: asks the device"


def test_a_state_that_is_loaded_is_what_recorded_steps_continue_from(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = (train(training_of("kd", teacher)), training_of("kd", teacher))
    train(half, 3)
    other = training_of("kd", teacher)
    emulate_recording(other, monkeypatch)
    train(other, 4)  # has its own recordings
    other.load_state(half.state())
    assert_same_bits(whole, train(other))


def test_nothing_is_tried_where_recordings_are_off() -> None:
    recordings = GraphRecorder(False, after_failure=lambda: None)
    assert recordings.try_record("step", lambda: pytest.fail("tried")) is None
    assert str(recordings) == "not recorded"


def test_other_errors_are_not_failed_recordings() -> None:
    recordings = GraphRecorder(True, after_failure=lambda: None)
    with pytest.raises(ZeroDivisionError):
        recordings.try_record("step", lambda: 1 / 0)


def test_trying_out_puts_everything_back_even_after_an_error() -> None:
    layer, new = nn.BatchNorm1d(2), {}

    def state() -> dict[str, torch.Tensor]:
        return {**dict(layer.named_buffers()), **new}

    def step() -> None:
        layer(torch.randn(4, 2))
        new["sum"] = torch.ones(3)
        raise ArithmeticError

    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(ArithmeticError):
        run_and_restore(step, state)
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())
    assert not new["sum"].any()


def test_on_a_cpu_there_is_no_stream_to_change() -> None:
    with own_stream(torch.device("cpu")):
        assert not torch.cuda.is_initialized()


def test_fewer_images_than_a_batch_are_recorded_as_the_last_batch(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few_images()
    few = replace(
        images, train_images=images.train_images[:9], train_labels=images.train_labels[:9]
    )
    eager = train(training_of("kd", teacher, images=few), 3)
    training = training_of("kd", teacher, images=few)
    recorder = emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training, 3))
    assert recorder.epochs == [1]
