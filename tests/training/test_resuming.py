"""Runs that cannot continue are refused with a remedy; others continue."""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.common.errors import InterruptedRunError, RunFailedError, SkdError, SkdWarning, error_text
from skd.common.lease import LeaseLostError
from skd.store.store import Store, StoreEntry, StoreError
from skd.training import checkpoint
from skd.training.checkpoint import CheckpointError
from skd.training.execution import ExecutionError, choose_execution
from tests.builders import tiny

STUDY = tiny.study(methods=["student"], recipe={"epochs": 2, "milestones": []})
CELL = STUDY.cell("resnet8", "student")


def entry_of(results: Path, seed: int = 0) -> StoreEntry:
    return Store(results).run(CELL.runs[seed])


def train(results: Path, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return tiny.numbers(tiny.run(STUDY, results, "student", seed, **changes))


def begin(results: Path, seed: int = 0, steps: int = 2) -> StoreEntry:
    """Train some of a run's four steps; it has then saved twice: an epoch, and at its stop."""
    remaining = iter(range(steps))
    with pytest.raises(InterruptedRunError):
        train(results, seed, should_stop=lambda: next(remaining, None) is None)
    return entry_of(results, seed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def started_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("started")
    begin(results, 0)
    return results


@pytest.fixture
def results(tmp_path: Path, started_run: Path) -> Path:
    shutil.copytree(started_run, tmp_path / "results")
    return tmp_path / "results"


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a checkpoint holds, its digest with it."""
    state = torch.load(_content(path), weights_only=True)
    change(state)
    plain = {name: value for name, value in state.items() if name != "of"}
    of = state.get("of")
    folder = path.parent / "rewritten"
    folder.mkdir()
    checkpoint.save(
        folder,
        plain,
        checkpoint.CheckpointOwner(**of) if of else checkpoint.CheckpointOwner("", ""),
    )
    (folder / "checkpoint.pt").replace(path)
    folder.rmdir()


def _content(path: Path) -> Any:
    return io.BytesIO(path.read_bytes()[32:])


def other_shapes(state: dict[str, Any]) -> None:
    student = state["training"]["student"]
    name = next(iter(student))
    student[name] = torch.zeros(1)


def other_keys(state: dict[str, Any]) -> None:
    state["trained"] = state.pop("training")


# Checkpoints.


def test_a_checkpoint_of_another_run_is_refused(results: Path) -> None:
    theirs, mine = begin(results, 1), entry_of(results)
    shutil.copy(theirs.folder / "checkpoint.pt", mine.folder)
    before = (mine.folder / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=f"of run {theirs.id}, not of run {mine.id}; move"):
        train(results)
    assert (mine.folder / "checkpoint.pt").read_bytes() == before
    assert mine.failure() is None
    assert mine.record() is None


def test_a_checkpoint_of_the_same_name_and_another_specification_is_refused(results: Path) -> None:
    path = entry_of(results).folder / "checkpoint.pt"
    rewrite(path, lambda state: state["of"].update(spec="another"))
    with pytest.raises(CheckpointError, match="a different specification"):
        train(results)


def test_a_checkpoint_from_before_it_named_its_run_still_loads(
    results: Path, whole: dict[str, Any]
) -> None:
    path = entry_of(results).folder / "checkpoint.pt"
    state = torch.load(_content(path), weights_only=True)
    assert state.pop("of")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    assert train(results) == whole


@pytest.mark.parametrize("change", [other_shapes, other_keys])
def test_a_checkpoint_that_does_not_fit_gives_way_to_the_one_before(
    results: Path, whole: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    rewrite(entry_of(results).folder / "checkpoint.pt", change)
    with pytest.warns(SkdWarning, match=r"checkpoint\.pt does not fit this run"):
        assert train(results) == whole


@pytest.mark.parametrize("change", [other_shapes, other_keys])
@pytest.mark.filterwarnings("ignore:.*does not fit")
def test_where_no_checkpoint_fits_the_run_is_not_started_again(
    results: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    entry = entry_of(results)
    paths = sorted(entry.folder.glob("checkpoint*.pt"))
    assert len(paths) == 2
    for path in paths:
        rewrite(path, change)
    contents = [path.read_bytes() for path in paths]
    with pytest.raises(CheckpointError, match="Resume with that version, or remove") as caught:
        train(results)
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in paths] == contents


# Folders.


def test_a_folder_that_is_a_link_to_another_runs_is_refused(results: Path) -> None:
    mine, theirs = entry_of(results, 1), entry_of(results, 0)
    mine.folder.symlink_to(theirs.folder)
    before = {path.name: path.stat().st_mtime_ns for path in theirs.folder.iterdir()}
    with pytest.raises(StoreError, match="is a link to another folder"):
        train(results, 1)
    assert {path.name: path.stat().st_mtime_ns for path in theirs.folder.iterdir()} == before


def test_a_folder_that_is_a_link_to_nothing_is_refused(results: Path) -> None:
    entry_of(results, 1).folder.symlink_to(results / CELL.runs[1])
    with pytest.raises(StoreError, match="which is not a folder"):
        train(results, 1)


def test_links_to_ones_own_folder_and_of_all_runs_are_fine(
    results: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    scratch = tmp_path / "scratch"
    shutil.move(results / "runs", scratch)
    (results / "runs").symlink_to(scratch)
    moved = tmp_path / "elsewhere" / CELL.runs[0]
    moved.parent.mkdir()
    shutil.move(scratch / CELL.runs[0], moved)
    (scratch / CELL.runs[0]).symlink_to(moved)
    assert train(results) == whole


def test_a_folder_that_is_removed_under_way_is_not_another_process(results: Path) -> None:
    folder = entry_of(results).folder

    def removing() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return False

    with pytest.raises(LeaseLostError, match="was removed during the training"):
        train(results, should_stop=removing)
    assert not folder.exists()


# Execution.


@pytest.mark.parametrize(
    "execution",
    [{"device": "cuda", "threads": 1}, {"device": "cpu", "threads": 100_000}, "garbage"],
)
def test_an_execution_without_a_checkpoint_binds_nobody(
    tmp_path: Path, whole: dict[str, Any], execution: Any
) -> None:
    path = entry_of(tmp_path).folder / "execution.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(execution))
    assert train(tmp_path) == whole
    assert json.loads(path.read_text())["threads"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"device": "cpu", "threads": 100000}', "100000 CPU threads cannot be executed here"),
        ('{"device": "cpu", "threads": 0}', "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_an_execution_that_is_impossible_here_is_refused_with_the_remedy(
    results: Path, content: str, message: str
) -> None:
    (entry_of(results).folder / "execution.json").write_text(content)
    with pytest.raises(ExecutionError, match=message) as caught:
        train(results)
    assert "remove" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_started_on_a_gpu_is_refused_without_one(results: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (entry_of(results).folder / "execution.json").write_text('{"device": "cuda", "threads": 1}')
    with pytest.raises(ExecutionError, match="must be resumed on a GPU"):
        train(results)


def test_more_threads_from_the_environment_than_cores_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 5000)
    with pytest.raises(ExecutionError, match="OMP_NUM_THREADS"):
        choose_execution("cpu", None)
    assert choose_execution("cpu", 1).threads == 1


# Errors during a training.


@pytest.mark.parametrize("room_for", [0, 2, 8])
def test_a_full_disk_names_the_file_and_the_remedy_and_loses_nothing(
    results: Path, whole: dict[str, Any], monkeypatch, room_for: int
) -> None:
    remaining, fsync = iter(range(room_for)), os.fsync

    def full(file: int) -> None:
        if next(remaining, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    entry = entry_of(results)
    with monkeypatch.context() as patch:
        patch.setattr("skd.common.files.os.fsync", full)
        with pytest.raises((SkdError, OSError)) as caught:
            train(results)
    message = error_text(caught.value)
    assert "No space left on device" in message
    assert "free some space, then run the same command again to continue" in message
    assert str(entry.folder) in message
    assert entry.record() is None
    assert train(results) == whole


def test_an_error_of_a_library_is_named_by_its_kind(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("training")

    monkeypatch.setattr("skd.training.loop.Training.run_epoch", fail)
    with pytest.raises(RunFailedError, match="KeyError: 'training'"):
        train(tmp_path)
    assert entry_of(tmp_path).failure().reason == "KeyError: 'training'"
