"""AdamW, the cosine, warm-up and label smoothing in whole runs: they repeat and resume."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.common.errors import InterruptedRunError
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.training.checkpoint import CheckpointError
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher
from tests.builders import tiny
from tests.builders.emulated_cuda_graph import emulate_recording
from tests.builders.steps import CPU, assert_same_bits, few_images, train, trained_teacher

RECIPE = {
    "epochs": 4,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 1,
}
SETTINGS = {
    "cross_entropy": {"label_smoothing": 0.1},
    "simplifier": {"learning_rate_multiplier": 0.5},
}
# The teacher keeps its own recipe.
TEACHERS = {
    "teacher": {
        "network": "resnet8",
        "train": {
            "seed": 7,
            "recipe": {
                "epochs": 2,
                "optimizer": "sgd",
                "learning_rate": 0.05,
                "schedule": "steps",
                "milestones": [],
            },
        },
    }
}
STUDY = tiny.study(methods=["student", "skd"], recipe=RECIPE, settings=SETTINGS, teachers=TEACHERS)
PLAIN = tiny.study(methods=["student"], recipe={"epochs": 4, "milestones": []})


def begin(study: Expansion, results: Path, method: str, steps: int, **changes: Any) -> None:
    """Train some steps of a run, save and stop."""
    remaining = iter(range(steps))
    with pytest.raises(InterruptedRunError):
        tiny.run(
            study, results, method, should_stop=lambda: next(remaining, None) is None, **changes
        )


@pytest.mark.parametrize(("method", "step"), [("skd", "fast"), ("student", "plain")])
def test_a_stopped_run_ends_with_the_bits_of_a_whole_one(
    tmp_path: Path, method: str, step: str
) -> None:
    execution = {"execution": choose_execution("cpu", 1, step)}
    whole = tiny.numbers(tiny.run(STUDY, tmp_path / "whole", method, **execution))
    begin(STUDY, tmp_path / "stopped", method, 1, **execution)  # in the warm-up
    begin(STUDY, tmp_path / "stopped", method, 3, **execution)
    resumed = tiny.run(STUDY, tmp_path / "stopped", method, **execution)
    assert tiny.numbers(resumed) == whole
    rates = [epoch.learning_rate for epoch in resumed.epochs]
    assert rates == pytest.approx([0.01, 0.01, 0.0075, 0.0025])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LiveTeacher:
    return trained_teacher(tmp_path_factory.mktemp("store"))


def test_recorded_steps_of_adamw_are_the_eager_ones_bit_for_bit(
    teacher: LiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Training:
        spec = STUDY.cell(tiny.PAIR, "skd").run(0)
        return Training(spec, DeviceDataset(few_images(), CPU), teacher, choose_execution("cpu", 1))

    eager, training = train(make()), make()
    recorder = emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training))
    assert recorder.epochs == [1, 1]
    changed = training.training_step.changed_tensors()
    counters = {float(value) for name, value in changed.items() if name.startswith("step ")}
    assert counters == {8.0}  # warm-ups are undone


def test_a_checkpoint_of_sgd_is_refused_by_a_run_with_adamw(tmp_path: Path) -> None:
    """One from before checkpoints named their run; newer ones are recognised by their owner."""
    begin(PLAIN, tmp_path, "student", 2)
    theirs = entry_of(PLAIN, tmp_path).folder / "checkpoint.pt"
    state = torch.load(io.BytesIO(theirs.read_bytes()[32:]), weights_only=True)
    del state["of"]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    begin(STUDY, tmp_path, "student", 1)
    mine = entry_of(STUDY, tmp_path).folder / "checkpoint.pt"
    shutil.copy(mine, tmp_path / "kept.pt")
    mine.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(CheckpointError, match="its optimiser is sgd, and the recipe of this run"):
        tiny.run(STUDY, tmp_path, "student")
    shutil.copy(tmp_path / "kept.pt", mine)
    assert len(tiny.run(STUDY, tmp_path, "student").epochs) == 4


def entry_of(study: Expansion, results: Path) -> StoreEntry:
    return Store(results).run(study.cell("resnet8", "student").runs[0])
