"""Several processes train a run as one does, up to rounding; a killed run resumes exactly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import load_file

from skd.common.errors import UnknownNameError
from skd.common.lease import LeaseHeldError, LeaseHolder
from skd.jobs.torchrun import torchrun_command
from skd.planning.parallel_config import ParallelConfig
from skd.store.records import Record
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.sheet import StudyError
from skd.training.data_parallel import BatchPartition
from skd.training.distributed import _portable, lost_process_error
from skd.training.teacher_setup import train_teacher
from tests.builders import tiny, two_processes
from tests.builders.paths import ROOT
from tests.builders.two_processes import METHODS


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return results with the teacher of all runs of these tests."""
    results = tmp_path_factory.mktemp("teachers")
    node = two_processes.study_of().teachers[0]
    train_teacher(node.spec, Store(results).teacher(node.id), tiny.options(), "teacher")
    return results


def torchrun(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start two processes that train together."""
    command = torchrun_command(["--unused"], 2)
    command = [*command[: command.index("--module") + 1], *map(str, arguments)]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
    )


def work(folder: Path, teachers: Path, *options: str) -> subprocess.Popen[str]:
    return torchrun(two_processes.__name__, folder, teachers, *options)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, teachers: Path) -> Path:
    """Return the results that two processes have trained."""
    folder = tmp_path_factory.mktemp("two")
    for options in ((), ("--long",)):
        done = work(folder, teachers, *options)
        _, output = done.communicate(timeout=300)
        assert done.returncode == 0, output
    return folder


def record_of(study: Expansion, method: str, results: Path) -> Record:
    record = Store(results).run(study.cell(tiny.PAIR, method).runs[0]).record()
    assert record is not None
    return record


def logits(study: Expansion, method: str, results: Path) -> np.ndarray:
    entry = Store(results).run(study.cell(tiny.PAIR, method).runs[0])
    return load_file(entry.logits_path)["logits"].astype(float)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_what_one_does(
    method: str, two: Path, tmp_path: Path, teachers: Path
) -> None:
    study = two_processes.study_of()
    two_processes.train(study, method, tmp_path, teachers, BatchPartition())
    one, other = record_of(study, method, tmp_path), record_of(study, method, two / "whole")
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert a.train_losses == pytest.approx(b.train_losses, rel=1e-9)
        assert a.diagnostics == pytest.approx(b.diagnostics, rel=1e-9, abs=1e-12)
        assert a.test_loss == pytest.approx(b.test_loss, rel=1e-9)
    np.testing.assert_allclose(  # stored as float16
        logits(study, method, two / "whole"), logits(study, method, tmp_path), rtol=2e-3
    )
    assert [one.execution["processes"], other.execution["processes"]] == [1, 2]
    assert "2 processes" in other.execution["sessions"][0]


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_resume_exactly_after_one_was_stopped(method: str, two: Path) -> None:
    study = two_processes.study_of()
    whole, stopped = (record_of(study, method, two / name) for name in ("whole", "stopped"))
    assert (whole.cost.sessions, stopped.cost.sessions) == (1, 2)
    assert tiny.numbers(whole) == tiny.numbers(stopped)


def wait_for(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (value := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def test_a_killed_process_ends_the_run_which_resumes_to_the_same_bits(
    two: Path, tmp_path: Path, teachers: Path
) -> None:
    study = two_processes.long_study()
    entry = Store(tmp_path / "long").run(study.cell(tiny.PAIR, "skd+crd").runs[0])
    started = work(tmp_path, teachers, "--long")
    wait_for((entry.folder / "checkpoint.previous.pt").exists)
    (second,) = (
        child
        for child in psutil.Process(started.pid).children(recursive=True)
        if child.environ().get("RANK") == "1"
    )
    second.kill()
    assert started.wait(timeout=60) != 0  # ends by itself
    assert entry.record() is None
    assert "process of this run has ended" in entry.failure().reason
    again = work(tmp_path, teachers, "--long")
    _, output = again.communicate(timeout=300)
    assert again.returncode == 0, output
    whole, resumed = (record_of(study, "skd+crd", path / "long") for path in (two, tmp_path))
    assert resumed.cost.sessions == 2
    assert tiny.numbers(whole) == tiny.numbers(resumed)


def test_a_run_continues_in_another_number_of_processes(
    tmp_path: Path, two: Path, teachers: Path
) -> None:
    study, calls = two_processes.study_of(), iter(range(100))
    with pytest.raises(two_processes.InterruptedRunError):
        two_processes.train(
            study, "kd", tmp_path, teachers, BatchPartition(), should_stop=lambda: next(calls) == 2
        )
    two_processes.train(study, "kd", tmp_path, teachers, BatchPartition(accumulate=2))
    one, other = (record_of(study, "kd", path) for path in (tmp_path, two / "whole"))
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert a.train_losses == pytest.approx(b.train_losses, rel=1e-9)
    assert ["2 parts" in session for session in one.execution["sessions"]] == [False, True]


def test_a_batch_that_cannot_be_shared_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    recipe = {**two_processes.RECIPE, "bn_batch": 32}
    sheet = {**tiny.SHEET, "methods": ["student"], "seeds": [0], "recipe": recipe}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(sheet))
    command = ["train", "many", "resnet8", "student", "--results", tmp_path / "results"]
    started = torchrun("--module", "skd", *command, "--device", "cpu")
    _, output = started.communicate(timeout=120)
    assert started.returncode != 0
    assert output.count("processes times parts may be: 1") == 1


def test_how_a_job_starts_processes() -> None:
    assert torchrun_command(["train"], 1) == [sys.executable, "-m", "skd", "train"]
    command = torchrun_command(["train", "x"], 4)
    assert command[command.index("--nproc-per-node") + 1] == "4"
    assert command[-3:] == ["skd", "train", "x"]
    assert "--standalone" in command


def test_a_study_that_cannot_be_divided_is_refused_before_it_starts() -> None:
    study = two_processes.study_of()
    ParallelConfig(processes_per_run=2, accumulate=2).check(study)
    with pytest.raises(StudyError, match=r"teacher--resnet8/kd in 8 processes.*may be: 1, 2, 4"):
        ParallelConfig(processes_per_run=8).check(study)
    with pytest.raises(StudyError, match="the recipe needs a bn_batch that divides"):
        ParallelConfig(accumulate=2).check(tiny.study())


def test_every_kind_of_message_arrives() -> None:
    known = LeaseHeldError(Path("run"), LeaseHolder("t", "host", 1, "2", None, 0.0))
    assert str(_portable(known)) == str(known)
    unknown = UnknownNameError("term", "kdd", ["kd"])
    assert "unknown term 'kdd'" in str(_portable(unknown))


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer", True),
        ("[../gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1", True),
        ("ncclRemoteError: A call failed possibly due to ... remote process exited", True),
        ("[../gloo/transport/tcp/device.cc:84] unable to find interface eth9", False),
        ("CUDA out of memory", False),
    ],
)
def test_only_a_lost_connection_means_a_lost_process(words: str, lost: bool) -> None:
    assert (lost_process_error(RuntimeError(words)) is not None) == lost


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        ParallelConfig(precision="float16")
