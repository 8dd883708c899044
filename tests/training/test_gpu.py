"""Tests that need a GPU: `pytest -m gpu`."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from skd.common.errors import InterruptedRunError
from skd.data import load_dataset as load_images
from skd.data.views import PixelViews, epoch_order
from skd.jobs.torchrun import torchrun_command
from skd.store.records import Record
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.training.data_parallel import BatchPartition
from skd.training.execution import choose_execution
from skd.training.lanes import run_in_lanes
from skd.training.resources import Resources
from skd.training.runs import complete_run
from skd.training.stored_views import make_teacher_views
from skd.training.teacher_setup import train_teacher
from tests.builders import photos, tiny, two_processes
from tests.builders.paths import ROOT
from tests.builders.steps import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
MOVING = {"settings": {"simplifier": {"learning_rate_multiplier": 1.0}}}
# CRD draws without replacement only where there are more images than it draws.
FEW_NEGATIVES = {"name": "few-negatives", "like": "crd", "settings": {"crd": {"negatives": 20}}}


def test_views_are_the_same_on_cpu_and_gpu() -> None:
    images = load_images(tiny.study().dataset)
    order = epoch_order(3, 2, len(images.train_labels))[:64]
    batches = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        maker = PixelViews(images, device)
        numbers = maker.draw_epoch(3, 2)[order.to(device)]
        batches.append(maker.batch(order.to(device), numbers).cpu())
    torch.testing.assert_close(*batches, rtol=0, atol=1e-6)


@pytest.mark.recording
@pytest.mark.parametrize("method", ["few-negatives", *METHODS])
def test_a_run_on_a_gpu_repeats_and_resumes_bit_for_bit(tmp_path: Path, method: str) -> None:
    gpu = {"execution": choose_execution("cuda", 1)}
    expansion = tiny.study(methods=[FEW_NEGATIVES, *METHODS], **MOVING)
    # The teacher is trained on the CPU, as `tiny.run` does.
    whole = tiny.run(expansion, tmp_path / "whole", method, **gpu)
    again = tiny.run(expansion, tmp_path / "again", method, **gpu)
    stops = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path / "resumed", method, should_stop=lambda: next(stops), **gpu)
    resumed = tiny.run(expansion, tmp_path / "resumed", method)
    assert resumed.execution["device"] == "cuda"
    assert tiny.numbers(whole) == tiny.numbers(again) == tiny.numbers(resumed)


def test_a_run_started_on_a_gpu_is_near_the_same_run_on_a_cpu(tmp_path: Path) -> None:
    expansion = tiny.study(recipe={"epochs": 1, "milestones": []})
    cpu = tiny.run(expansion, tmp_path / "cpu", "kd")
    gpu = tiny.run(expansion, tmp_path / "gpu", "kd", execution=choose_execution("cuda", 1))
    assert gpu.epochs[0].train_losses == pytest.approx(cpu.epochs[0].train_losses, rel=0.02)


@pytest.mark.recording
def test_a_step_is_recorded_and_the_same_as_eager_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check recordings of a method whose weights rise, one that draws, and one with maps."""
    settings = {**MOVING["settings"], "dkd": {"warmup_epochs": 2}}
    methods = ["student", "dkd", "skd+crd", "reviewkd"]
    expansion = tiny.study(methods=methods, settings=settings)
    gpu = {"execution": choose_execution("cuda", 1)}
    recorded = {name: tiny.run(expansion, tmp_path / "recorded", name, **gpu) for name in methods}

    def refused(*_: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr("skd.training.cuda_graph.record_graph", refused)
    for name, record in recorded.items():
        assert record.execution["recording"] == "recorded as a CUDA graph", name
        eager = tiny.run(expansion, tmp_path / "eager", name, **gpu)
        assert eager.execution["recording"] == "not recorded: not today"
        assert tiny.numbers(eager) == tiny.numbers(record), name


@pytest.mark.recording
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_recorded(tmp_path: Path, method: str) -> None:
    expansion = tiny.study(methods=METHODS, recipe={"epochs": 1, "milestones": []})
    record = tiny.run(expansion, tmp_path, method, execution=choose_execution("cuda", 1))
    assert record.execution["recording"] == "recorded as a CUDA graph"


@pytest.mark.parametrize("method", ["student", "kd", "skd+dkd", "reviewkd"])
def test_fast_steps_are_near_plain_ones(tmp_path: Path, method: str) -> None:
    recipe = {"epochs": 1, "milestones": [], "learning_rate": 0.01}
    expansion = tiny.study(methods=["student", "kd", "skd+dkd", "reviewkd"], recipe=recipe)
    fast, plain = (
        tiny.run(expansion, tmp_path / step, method, execution=choose_execution("cuda", 1, step))
        for step in ("fast", "plain")
    )
    assert fast.epochs[0].train_losses == pytest.approx(plain.epochs[0].train_losses, rel=0.02)


@pytest.mark.recording
def test_lanes_are_the_runs_alone_bit_for_bit(tmp_path: Path) -> None:
    expansion = tiny.study(seeds=4)
    store, materials, gpu = Store(tmp_path / "lanes"), Resources(), choose_execution("cuda", 1)
    alone = {
        seed: tiny.run(expansion, tmp_path / "alone", "skd", seed, execution=gpu)
        for seed in expansion.seeds
    }
    node, cell = expansion.teachers[0], expansion.cell(tiny.PAIR, "skd")
    teacher = store.teacher(node.id)
    train_teacher(node.spec, teacher, tiny.options(), "teacher")
    results = {}

    def work(seed: int) -> None:
        entry, options = store.run(cell.runs[seed]), tiny.options(execution=gpu, sharing=4)
        results[seed] = complete_run(cell.run(seed), entry, options, f"{seed}", teacher, materials)

    run_in_lanes(work, expansion.seeds, 4)
    assert {k: tiny.numbers(v) for k, v in results.items()} == {
        k: tiny.numbers(v) for k, v in alone.items()
    }


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_stored_views_are_the_live_teachers(tmp_path: Path, precision: str) -> None:
    expansion = tiny.study(methods=["student", "skd+crd"], recipe={"epochs": 1, "milestones": []})
    gpu = choose_execution("cuda", 1)
    live = tiny.run(expansion, tmp_path, "skd+crd", execution=gpu)
    entry = Store(tmp_path).teacher(expansion.teachers[0].id)
    make_teacher_views(entry, expansion.dataset, ("logits", "pooled"), precision, gpu)
    for path in Store(tmp_path).run(live.id).folder.iterdir():
        path.unlink()
    stored = tiny.run(expansion, tmp_path, "skd+crd", execution=gpu)
    assert stored.execution["teacher"] == precision
    assert stored.epochs[0].train_losses == pytest.approx(live.epochs[0].train_losses, rel=0.02)


DIVISIBLE = {"epochs": 2, "milestones": [], "batch_size": 4, "bn_batch": 2, "last_batch": "drop"}


def eager_of(
    monkeypatch: pytest.MonkeyPatch, expansion: Expansion, folder: Path, method: str
) -> Record:
    """Return the record of a run whose steps were not recorded."""

    def refused(*_: object) -> None:
        raise RuntimeError("not today")

    with monkeypatch.context() as patch:
        patch.setattr("skd.training.cuda_graph.record_graph", refused)
        return tiny.run(expansion, folder, method, execution=choose_execution("cuda", 1))


@pytest.mark.recording
@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_on_photos_is_recorded_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("SKD_DATA", str(tmp_path))
    monkeypatch.setattr("skd.training.resources.cores_per_process", lambda: workers)
    photos.make_folder(tmp_path / "made-up")
    settings = {"simplifier": {"group": 2}, "crd": {"negatives": 4}}
    expansion = tiny.study(
        dataset=photos.dataset("made-up"), recipe=DIVISIBLE, settings=settings, methods=["skd+crd"]
    )
    recorded = tiny.run(
        expansion, tmp_path / "recorded", "skd+crd", execution=choose_execution("cuda", 1)
    )
    assert recorded.execution["recording"] == "recorded as a CUDA graph"
    eager = eager_of(monkeypatch, expansion, tmp_path / "eager", "skd+crd")
    assert tiny.numbers(eager) == tiny.numbers(recorded)


@pytest.mark.recording
def test_gathered_negatives_are_recorded_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make CRD gather scores, as with more images than it can score."""
    monkeypatch.setattr("baselines.crd.MOST_SCORED", 10)
    expansion = tiny.study(methods=["crd"], settings={"crd": {"negatives": 20}})
    recorded = tiny.run(
        expansion, tmp_path / "recorded", "crd", execution=choose_execution("cuda", 1)
    )
    assert recorded.execution["recording"] == "recorded as a CUDA graph"
    eager = eager_of(monkeypatch, expansion, tmp_path / "eager", "crd")
    assert tiny.numbers(eager) == tiny.numbers(recorded)


def test_parts_of_a_batch_on_a_gpu_are_near_the_whole(tmp_path: Path) -> None:
    recipe = {**DIVISIBLE, "batch_size": 32, "bn_batch": 8, "learning_rate": 0.01}
    expansion = tiny.study(methods=["kd"], recipe=recipe)
    whole, parts = (
        tiny.run(
            expansion,
            tmp_path / str(count),
            "kd",
            execution=choose_execution("cuda", 1),
            partition=BatchPartition(accumulate=count),
        )
        for count in (1, 2)
    )
    assert whole.execution["recording"] == "recorded as a CUDA graph"
    assert parts.epochs[0].train_losses == pytest.approx(whole.epochs[0].train_losses, rel=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices here")
def test_two_gpus_train_what_one_does(tmp_path: Path) -> None:
    study, results = two_processes.study_of(), tmp_path / "teachers"
    node = study.teachers[0]
    train_teacher(node.spec, Store(results).teacher(node.id), tiny.options(), "teacher")
    command = torchrun_command(["--unused"], 2)
    command = [*command[: command.index("--module") + 1], two_processes.__name__]
    subprocess.run(
        [*command, str(tmp_path / "two"), str(results), "--cuda"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    for method in two_processes.METHODS:
        two_processes.train(
            study,
            method,
            tmp_path / "one",
            results,
            BatchPartition(),
            execution=choose_execution("cuda", 1),
        )
        cell = study.cell(tiny.PAIR, method)
        one = Store(tmp_path / "one").run(cell.runs[0]).record()
        two = Store(tmp_path / "two" / "whole").run(cell.runs[0]).record()
        assert one.epochs[0].train_losses == pytest.approx(two.epochs[0].train_losses, rel=1e-6)
