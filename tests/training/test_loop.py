"""The loop resumes bit for bit, pairs seeds, keeps the teacher fixed, and reports failures."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from baselines.simplifier import Simplifier, SimplifierSettings
from skd.common.errors import InterruptedRunError
from skd.common.files import sha256_of
from skd.data import load_dataset as load_images
from skd.models import build_model
from skd.store.outcomes import run_outcome
from skd.store.store import Store
from skd.training import checkpoint, runs
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.runs import RunFailedError
from skd.training.teacher import LiveTeacher
from skd.training.weights import load_teacher_network
from tests.builders import tiny
from tests.builders.simplifiers import context_of

CPU = torch.device("cpu")
METHODS = ("student", "kd", "skd", "skd+kd")
# A simplifier with a high rate: at the default rate it hardly moves in a few steps.
MOVING = {"settings": {"simplifier": {"learning_rate_multiplier": 1.0}}}
STEPS = 6


class Crash(BaseException):
    """Emulates the end of the process: no handler catches it."""


def crash_after(steps: int) -> Callable[[], bool]:
    """Return a `should_stop` that crashes after a number of steps."""
    answers = iter(range(steps, 0, -1))

    def stopping() -> bool:
        if next(answers) == 1:
            raise Crash
        return False

    return stopping


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return each method's numbers after uninterrupted training, and the results folder."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("plain")
    expansion = tiny.study(**MOVING)
    done = {method: tiny.numbers(tiny.run(expansion, results, method)) for method in METHODS}
    return {**done, "results": results}


@settings(max_examples=8, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    crashes=st.lists(st.integers(1, STEPS), min_size=1, max_size=3),
    stops=st.lists(st.integers(1, STEPS - 1), max_size=2),
)
def test_resumes_bit_for_bit_from_any_crash_or_stop(
    plain, tmp_path_factory, method, crashes, stops
) -> None:
    results, expansion = tmp_path_factory.mktemp("resumed"), tiny.study(**MOVING)
    shutil.copytree(plain["results"] / "teachers", results / "teachers")
    for steps in crashes:
        with contextlib.suppress(Crash):  # unless fewer steps were left: then it is done
            tiny.run(expansion, results, method, should_stop=crash_after(steps))
    for steps in stops:  # SIGTERM: saves in the middle of an epoch
        answers = iter([False] * (steps - 1) + [True])
        with contextlib.suppress(InterruptedRunError):
            tiny.run(expansion, results, method, should_stop=lambda a=answers: next(a, False))
    record = tiny.run(expansion, results, method)
    assert tiny.numbers(record) == plain[method]


def test_a_stop_saves_the_very_step(tmp_path: Path, plain) -> None:
    expansion = tiny.study(**MOVING)
    with pytest.raises(InterruptedRunError, match="after epoch 1, step 1; saved"):
        tiny.run(expansion, tmp_path, "skd", should_stop=iter([False, False, True]).__next__)
    steps = []
    record = tiny.run(expansion, tmp_path, "skd", should_stop=lambda: bool(steps.append(1)))
    assert len(steps) == STEPS - 3
    assert record.cost.sessions == 2
    assert tiny.numbers(record) == plain["skd"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"\0" * 9])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, plain, damage) -> None:
    expansion = tiny.study(**MOVING)
    with pytest.raises(Crash):
        tiny.run(expansion, tmp_path, "skd", should_stop=crash_after(5))
    folder = Store(tmp_path).run(expansion.cell(tiny.PAIR, "skd").runs[0]).folder
    current = folder / "checkpoint.pt"
    current.write_bytes(damage(current.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        record = tiny.run(expansion, tmp_path, "skd")
    assert tiny.numbers(record) == plain["skd"]


def test_seeds_are_paired_across_methods(tmp_path: Path) -> None:
    """Same initial student, order and views for every method of a seed; others for another seed."""
    expansion = tiny.study()
    images = load_images(expansion.dataset)
    tiny.run(expansion, tmp_path, "kd")
    entry = Store(tmp_path).teacher(expansion.teachers[0].id)
    teacher = load_teacher_network(entry, CPU, images.num_classes).network
    starts = {}
    for cell in expansion.cells:
        for seed in cell.runs:
            training = Training(
                cell.run(seed),
                DeviceDataset(images, CPU),
                LiveTeacher(teacher) if cell.teacher else None,
                choose_execution("cpu", 1),
            )
            starts[cell.method, seed] = torch.cat(
                [value.flatten().double() for value in training.student.state_dict().values()]
            )
            batches = []
            make = training.views.batch
            training.views.batch = lambda i, n, make=make, b=batches: b.append(make(i, n)) or b[-1]
            training.run_epoch(lambda _: None)
            starts[cell.method, seed, "batches"] = torch.cat(batches)
    for method in METHODS:
        for key in ((0,), (0, "batches"), (1,), (1, "batches")):
            assert torch.equal(starts[method, *key], starts["student", *key])
    assert not torch.equal(starts["kd", 0], starts["kd", 1])
    assert not torch.equal(starts["kd", 0, "batches"], starts["kd", 1, "batches"])


def test_global_generators_decide_nothing_and_are_left_alone(tmp_path: Path, plain) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    record = tiny.run(tiny.study(**MOVING), tmp_path, "skd+kd")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert tiny.numbers(record) == plain["skd+kd"]


def test_the_teacher_is_untouched_and_in_evaluation_mode(tmp_path: Path) -> None:
    expansion = tiny.study()
    tiny.run(expansion, tmp_path, "kd")
    images = load_images(expansion.dataset)
    entry = Store(tmp_path).teacher(expansion.teachers[0].id)
    teacher = load_teacher_network(entry, CPU, images.num_classes).network
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    training = Training(
        expansion.cell(tiny.PAIR, "skd+kd").run(0),
        DeviceDataset(images, CPU),
        LiveTeacher(teacher),
        choose_execution("cpu", 1),
    )
    training.run_epoch(lambda _: None)
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_finished_run_leaves_a_full_record_and_nothing_to_resume(tmp_path: Path) -> None:
    expansion = tiny.study()
    record = tiny.run(expansion, tmp_path, "skd")
    entry = Store(tmp_path).run(record.id)
    names = {path.name for path in entry.folder.iterdir()}
    assert names == {
        "spec.json",
        "execution.json",
        "record.json",
        "weights.safetensors",
        "test_logits.safetensors",
        "objective.safetensors",
    }
    for path in (entry.weights_path, entry.logits_path, entry.objective_path):
        assert record.files[path.name] == sha256_of(path)
    assert len(record.files) == 3
    assert entry.record() == record
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in record.epochs] == pytest.approx([0.05, 0.05, 0.005])
    assert record.last.top1 == record.epochs[-1].test_top1
    assert record.best.top1 == max(epoch.test_top1 for epoch in record.epochs)
    assert record.epochs[0].diagnostics.keys() >= {"entropy_simplified", "top1_simplified"}
    assert record.teacher == Store(tmp_path).teacher(expansion.teachers[0].id).card()
    assert record.cost.extra_parameters > 0
    student = build_model("resnet8", 10)
    student.load_state_dict(load_file(entry.weights_path))
    images = load_images(expansion.dataset)
    training = Training(
        expansion.cell("resnet8", "student").run(0),
        DeviceDataset(images, CPU),
        None,
        choose_execution("cpu", 1),
    )
    student.to(memory_format=training.execution.memory_format)
    logits = training.dataset.evaluator.logits(student)
    assert torch.equal(logits.half(), load_file(entry.logits_path)["logits"])
    assert training.dataset.evaluator.scores(logits).top1 == record.last.top1


def test_what_the_objective_learned_is_kept_where_there_is_something(tmp_path: Path) -> None:
    recipe = {"epochs": 1, "milestones": []}
    expansion = tiny.study(methods=["kd", "skd+crd"], recipe=recipe)
    store = Store(tmp_path)
    record = tiny.run(expansion, tmp_path, "kd")
    assert not store.run(record.id).objective_path.exists()
    assert "objective.safetensors" not in record.files
    # The simplifier alone, not CRD's embeddings and banks.
    stored = load_file(store.run(tiny.run(expansion, tmp_path, "skd+crd").id).objective_path)
    spec = expansion.cell(tiny.PAIR, "skd+crd").spec.method.simplifier
    fresh = Simplifier(SimplifierSettings.restore(spec.settings), context_of(10)).state_dict()
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in fresh.items()
    }
    assert stored["output.weight"].any()  # it starts at 0, and has learned


def test_a_run_without_its_own_result_is_never_trained_twice(tmp_path: Path) -> None:
    expansion = tiny.study()
    record = tiny.run(expansion, tmp_path, "student")

    def no_step() -> bool:
        raise AssertionError("trained again")

    assert tiny.run(expansion, tmp_path, "student", should_stop=no_step) == record


def test_how_a_run_is_executed_is_fixed_at_its_first_step(tmp_path: Path) -> None:
    expansion = tiny.study()
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path, "student", should_stop=lambda: True)
    torch.set_num_threads(2)
    two = choose_execution("cpu", 2)
    record = tiny.run(expansion, tmp_path, "student", execution=two)
    assert record.execution["threads"] == 1
    assert torch.get_num_threads() == 1


def test_a_non_finite_loss_fails_the_run_with_its_reason_and_no_record(tmp_path: Path) -> None:
    expansion = tiny.study(
        recipe={"epochs": 2, "milestones": [1], "learning_rate": 1e9, "weight_decay": 1e9}
    )
    with pytest.raises(RunFailedError, match=r"not finite in epoch 1, step [12] "):
        tiny.run(expansion, tmp_path, "student")
    entry = Store(tmp_path).run(expansion.cell("resnet8", "student").runs[0])
    assert entry.record() is None
    assert entry.failure().kind == "NonFiniteLossError"
    assert "a smaller learning rate" in entry.failure().reason
    assert run_outcome(entry, 0).outcome == "failed"


def test_a_collapsed_simplifier_is_flagged_in_the_record(tmp_path: Path) -> None:
    """Without residual and from a zero output the simplified teacher is uniform from the start."""
    collapsing = {"simplifier": {"combination": "attention", "learning_rate_multiplier": 1e-6}}
    record = tiny.run(tiny.study(settings=collapsing), tmp_path, "skd")
    assert record.collapse.collapsed
    assert record.collapse.first_epoch == 1
    assert "lost its information" in record.collapse.reason
    assert tiny.run(tiny.study(), tmp_path, "kd").collapse is None


def test_checkpoints_are_at_most_so_far_apart(tmp_path: Path, monkeypatch) -> None:
    saves = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, state, of: saves.append(state))
    tiny.run(tiny.study(), tmp_path / "every", "student", checkpoint_seconds=0.0)
    assert len(saves) == 3
    tiny.run(tiny.study(), tmp_path / "rarely", "student", checkpoint_seconds=3600.0)
    assert len(saves) == 3


def test_a_long_epoch_is_saved_within_it(tmp_path: Path, plain, monkeypatch) -> None:
    monkeypatch.setattr(runs, "TRAIN_TO_SAVE_RATIO", 0)
    expansion = tiny.study(**MOVING)
    with pytest.raises(Crash):
        tiny.run(expansion, tmp_path, "skd", checkpoint_seconds=1e-9, should_stop=crash_after(4))
    cell = expansion.cell(tiny.PAIR, "skd")
    entry = Store(tmp_path).run(cell.runs[0])
    of = checkpoint.CheckpointOwner.of(entry, cell.run(0))
    state = checkpoint.load(entry.folder, torch.device("cpu"), of)["training"]
    assert (len(state["history"]), state["step"]) == (1, 1)
    assert tiny.numbers(tiny.run(expansion, tmp_path, "skd")) == plain["skd"]


def test_saving_that_takes_long_is_done_less_often(tmp_path: Path, monkeypatch) -> None:
    saves: list[int] = []
    monkeypatch.setattr(runs, "TRAIN_TO_SAVE_RATIO", 1e9)
    monkeypatch.setattr(checkpoint, "save", lambda folder, state, of: saves.append(len(saves)))
    recipe = {"epochs": 1, "milestones": [], "batch_size": 8}
    tiny.run(tiny.study(recipe=recipe), tmp_path, "student", checkpoint_seconds=1e-9)
    assert len(saves) == 2  # after the first step, and at the epoch's end


@pytest.mark.slow
def test_kill_9_and_sigterm_of_the_real_command(tmp_path: Path) -> None:
    """`skd train`, killed again and again at no chosen moment, and started again."""
    sheet = {**tiny.SHEET, "seeds": 1, **MOVING}
    sheet["dataset"] = {"name": "digits", "train_limit": 400}
    sheet["recipe"] = {"epochs": 8, "milestones": [4]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(sheet))
    common = [sys.executable, "-m", "skd"]
    place = ["--results", "{}", "--threads", "1", "--checkpoint-seconds", "0"]

    def start(results: str, *command: str) -> subprocess.Popen:
        arguments = [*common, *command, *(part.format(results) for part in place)]
        return subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def record(results: str) -> Path:
        return next((tmp_path / results / "runs").glob("*/record.json"))

    assert start("whole", "teacher", "tiny.yaml", "teacher").wait() == 0
    shutil.copytree(tmp_path / "whole" / "teachers", tmp_path / "killed" / "teachers")
    assert start("whole", "train", "tiny.yaml", tiny.PAIR, "skd").wait() == 0
    train = ("train", "tiny.yaml", tiny.PAIR, "skd")
    signals = [signal.SIGTERM, signal.SIGKILL]
    for number in signals:
        process = start("killed", *train)
        folder = tmp_path / "killed" / "runs"
        times = _mtimes(folder)
        while process.poll() is None and _mtimes(folder) <= times:
            time.sleep(0.02)  # until it has written another checkpoint, or is done
        process.send_signal(number)
        assert process.wait() in (-signal.SIGKILL, 143), process.stderr.read()
    assert start("killed", *train).wait() == 0
    whole, killed = (json.loads(record(results).read_text()) for results in ("whole", "killed"))
    assert killed["cost"]["sessions"] == 1 + len(signals)
    assert killed["files"] == whole["files"]
    for ours, theirs in zip(killed["epochs"], whole["epochs"], strict=True):
        for timing in ("seconds", "images_per_second"):
            del ours[timing], theirs[timing]
        assert ours == theirs


def _mtimes(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for path in folder.glob("*/checkpoint.pt")), default=0)
