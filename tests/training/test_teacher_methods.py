"""Teachers trained by a method: gradients, resuming, division of batches, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.common.errors import InterruptedRunError
from skd.data import load_dataset
from skd.models import build_model
from skd.models.accounting import count_parameters
from skd.store.store import Store
from skd.study.spec import TrainedTeacher
from skd.training.data_parallel import BatchPartition
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher_setup import train_teacher
from tests.builders import tiny
from tests.builders.emulated_cuda_graph import emulate_recording
from tests.builders.steps import assert_same_bits, train

SOURCES = {
    "sftn": {"method": "sftn", "partner": "resnet8"},
    "soteacher": {"method": "soteacher"},
    "sum": {"method": "sftn+soteacher", "partner": "resnet8"},
}
GROUPED = {"bn_batch": 8, "last_batch": "drop", "batch_size": 32}


def spec_of(name: str, **recipe: Any) -> TrainedTeacher:
    """Return a resnet14 that a method trains for three epochs of two steps."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the dtype of the trials that an expansion caches
    try:
        study = tiny.study(
            recipe={"epochs": 3, "milestones": [2], **recipe},
            teachers={"teacher": {"network": "resnet14", "train": {"seed": 1, **SOURCES[name]}}},
            methods=["kd"],
        )
    finally:
        torch.set_default_dtype(kind)
    return study.teachers[0].spec


def training_of(spec: TrainedTeacher, division: BatchPartition | None = None) -> Training:
    images = load_dataset(spec.dataset)
    execution = choose_execution("cpu", 1)
    return Training(spec.run, DeviceDataset(images, torch.device("cpu")), None, execution, division)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", SOURCES)
def test_the_teacher_and_all_of_its_branches_are_trained(name: str) -> None:
    training = training_of(spec_of(name))
    train(training, 1)
    trained = [*training.student.parameters(), *training.objective.parameters()]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)
    in_optimiser = [p for g in training.optimizer.param_groups for p in g["params"]]
    assert {id(p) for p in in_optimiser} == {id(p) for p in trained}
    extra = count_parameters(training.objective)
    assert (extra > 0) == (name != "soteacher")
    assert extra < 2 * count_parameters(build_model("resnet8", 10)) + 2000  # without unused layers


@pytest.mark.parametrize("name", ["sftn", "soteacher"])
def test_a_resumed_teacher_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    entries = [Store(tmp_path / folder).teacher(spec.identity) for folder in ("whole", "resumed")]
    whole = train_teacher(spec, entries[0], tiny.options(), "teacher")
    steps = iter(range(3))  # into the second epoch, where the running means count
    with pytest.raises(InterruptedRunError):
        train_teacher(
            spec,
            entries[1],
            tiny.options(should_stop=lambda: next(steps, None) is None),
            "teacher",
        )
    resumed = train_teacher(spec, entries[1], tiny.options(), "teacher")
    assert whole == resumed
    records = [entry.record() for entry in entries]
    assert tiny.numbers(records[0]) == tiny.numbers(records[1])
    assert records[1].cost.sessions == 2
    # The branches are dropped, and the card says whom the teacher suits.
    assert not entries[0].objective_path.exists()
    assert whole.partner == SOURCES[name].get("partner")
    assert whole.origin.startswith(f"trained here by {name}")
    accuracies = {f"sftn/branch {stage} top-1" for stage in (1, 2) if name == "sftn"}
    assert all(set(epoch.diagnostics) == accuracies for epoch in records[0].epochs)


def test_steps_in_parts_are_whole_steps(double: None) -> None:
    spec = spec_of("sum", **GROUPED)
    whole = train(training_of(spec), 3)  # the third one is of the second epoch
    parts = train(training_of(spec, BatchPartition(accumulate=4)), 3)
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-9, atol=1e-11, equal_nan=True)


def test_recorded_steps_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("sum")
    eager = train(training_of(spec), 4)
    training = training_of(spec)
    emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training, 4))
    assert str(training.recorder) == "recorded as a CUDA graph"


def test_the_branches_change_neither_the_first_weights_nor_the_views() -> None:
    """A teacher of the same seed starts equally, whatever the method."""
    plain = training_of(spec_of("soteacher"))
    suited = training_of(spec_of("sum"))
    assert_same_bits(plain.student.state_dict(), suited.student.state_dict())
