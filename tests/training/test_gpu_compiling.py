"""Compiled passes and failed recordings on a GPU: `pytest -m gpu`."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.common.errors import InterruptedRunError
from skd.losses.objective import Objective
from skd.store.store import Store
from skd.training.execution import choose_execution
from skd.training.fast_paths import FastPaths
from skd.training.lanes import run_in_lanes
from skd.training.resources import Resources
from skd.training.runs import complete_run
from skd.training.teacher_setup import train_teacher
from tests.builders import tiny
from tests.builders.paths import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
ALWAYS = FastPaths(compile="always")
STUDY = tiny.study(
    methods=["kd", "skd+crd", "reviewkd"],
    settings={"simplifier": {"learning_rate_multiplier": 1.0}, "reviewkd": {"warmup_epochs": 2}},
)
SIXTY_STEPS = """
import sys
from pathlib import Path
from skd.training.execution import choose_execution
from skd.training.fast_paths import FastPaths
from tests.builders import tiny

study = tiny.study(methods=["reviewkd"], recipe={"epochs": 30, "milestones": [20]})
gpu = {"execution": choose_execution("cuda", 1), "paths": FastPaths(compile="always")}
record = tiny.run(study, Path(sys.argv[1]), sys.argv[2], **gpu)
assert record.execution["compiled"], record.execution
print(tiny.numbers(record))
"""


def gpu(**more: Any) -> dict[str, Any]:
    return {"execution": choose_execution("cuda", 1), **more}


@pytest.mark.recording
@pytest.mark.parametrize("method", ["kd", "skd+crd", "reviewkd"])
def test_compiled_runs_repeat_and_resume_bit_for_bit(tmp_path: Path, method: str) -> None:
    whole = tiny.run(STUDY, tmp_path / "whole", method, **gpu(fast_paths=ALWAYS))
    assert whole.execution["compiled"] is True
    assert whole.execution["recording"] == "recorded as a CUDA graph"
    stops = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(
            STUDY,
            tmp_path / "half",
            method,
            **gpu(fast_paths=ALWAYS, should_stop=lambda: next(stops)),
        )
    resumed = tiny.run(STUDY, tmp_path / "half", method)
    assert tiny.numbers(resumed) == tiny.numbers(whole)
    eager = tiny.run(STUDY, tmp_path / "eager", method, **gpu())
    assert whole.epochs[0].train_losses == pytest.approx(eager.epochs[0].train_losses, rel=0.02)


def test_fresh_processes_with_empty_caches_compile_to_the_same_bits(tmp_path: Path) -> None:
    started = []
    for name in ("one", "other"):
        place = {
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name / "inductor"),
            "TRITON_CACHE_DIR": str(tmp_path / name / "triton"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        command = [sys.executable, "-c", SIXTY_STEPS, str(tmp_path / name / "results"), "reviewkd"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **place}, **pipes))
    results = []
    for process in started:
        out, error = process.communicate()
        assert not process.returncode, error
        results.append(out.splitlines()[-1])
    assert results[0] == results[1]


@pytest.mark.recording
def test_compiled_lanes_are_the_runs_alone_bit_for_bit(tmp_path: Path) -> None:
    store, materials = Store(tmp_path / "lanes"), Resources()
    runs = [("kd", 0), ("kd", 1), ("skd+crd", 0), ("reviewkd", 0)]
    alone = {
        run: tiny.numbers(tiny.run(STUDY, tmp_path / "alone", *run, **gpu(fast_paths=ALWAYS)))
        for run in runs
    }
    node = STUDY.teachers[0]
    teacher = store.teacher(node.id)
    train_teacher(node.spec, teacher, tiny.options(), "teacher")
    results = {}

    def work(run: tuple[str, int]) -> None:
        cell = STUDY.cell(tiny.PAIR, run[0])
        options = tiny.options(**gpu(fast_paths=ALWAYS), sharing=4)
        entry = store.run(cell.runs[run[1]])
        record = complete_run(cell.run(run[1]), entry, options, f"{run}", teacher, materials)
        results[run] = tiny.numbers(record)

    run_in_lanes(work, runs, 4)
    assert results == alone


@pytest.mark.recording
@pytest.mark.parametrize("paths", [FastPaths(), ALWAYS], ids=["eager", "compiled"])
def test_autograd_finds_all_on_one_stream(tmp_path: Path, paths: FastPaths) -> None:
    """PyTorch warns where a weight was first used on another stream than that of its step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*AccumulateGrad.*")
        record = tiny.run(STUDY, tmp_path, "skd+crd", **gpu(fast_paths=paths))
    assert record.execution["recording"] == "recorded as a CUDA graph"


@pytest.mark.recording
@pytest.mark.parametrize("method", ["kd", "skd+crd"])
@pytest.mark.parametrize("failures", [1, 2])
def test_a_capture_that_fails_is_followed_by_another_or_by_eager_steps(
    tmp_path: Path, method: str, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA refuses a read from the device within a capture."""
    whole = tiny.run(STUDY, tmp_path / "whole", method, **gpu())
    forward, remaining = Objective.forward, [failures]

    def reading(self: Objective, batch: Any) -> Any:
        losses = forward(self, batch)
        if torch.cuda.is_current_stream_capturing() and remaining[0]:
            remaining[0] -= 1
            losses.total.item()
        return losses

    monkeypatch.setattr(Objective, "forward", reading)
    record = tiny.run(STUDY, tmp_path / "failing", method, **gpu())
    assert tiny.numbers(record) == tiny.numbers(whole)
    reason = record.execution["recording"]
    assert ("at the second attempt" in reason) == (failures == 1)
    assert "previous error" not in reason  # a consequence, not the cause


@pytest.mark.recording
def test_after_a_capture_that_failed_others_of_the_process_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def reading(self: Objective, batch: Any) -> Any:
        losses = forward(self, batch)
        if torch.cuda.is_current_stream_capturing():
            losses.total.item()
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", reading)
        failed = tiny.run(STUDY, tmp_path / "failed", "skd+crd", **gpu())
    assert "the last batch not recorded" in failed.execution["recording"] or (
        failed.execution["recording"].startswith("not recorded: ")
    )
    record = tiny.run(STUDY, tmp_path / "next", "skd+crd", **gpu())
    assert record.execution["recording"] == "recorded as a CUDA graph"
    assert tiny.numbers(record) == tiny.numbers(failed)
