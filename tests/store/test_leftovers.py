"""Leftovers of killed processes are distinguished from living files, counted and removed."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd.common.errors import SkdError
from skd.common.files import write_atomically
from skd.common.lease import hold_lease
from skd.common.temporary_files import (
    ABANDONED_SECONDS,
    abandoned_files,
    temporary_files,
    temporary_name,
)
from skd.store.leftovers import count_leftovers, remove_leftovers
from skd.store.store import Store, StoreEntry
from tests.builders import tiny

STUDY = tiny.study(methods=["student"], recipe={"epochs": 1, "milestones": []})
EARLIER = (".record.json.0123456789abcdef0123456789abcdef", f".lease-{'0' * 32}")
NOT_OURS = (".record.json", ".hidden", "record.json", ".a.0123", ".nfs000000000123456789")

DIE_WRITING = """
import os, signal, sys
from pathlib import Path
from skd.common.files import write_atomically
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b"new")
"""


def of_a_killed_process(path: Path) -> Path:
    """Create the temporary file of a process that is killed while it writes."""
    before = {*temporary_files(path.parent)}
    subprocess.run([sys.executable, "-c", DIE_WRITING, path], check=False)
    (leftover,) = {*temporary_files(path.parent)} - before
    return leftover


def aged(path: Path, seconds: float) -> Path:
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_a_killed_write_leaves_the_old_file_and_the_next_write_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "analysis.npz"
    write_atomically(path, b"old")
    leftover, another = of_a_killed_process(path), of_a_killed_process(tmp_path / "analysis")
    assert path.read_bytes() == b"old"
    assert abandoned_files(tmp_path) == sorted([leftover, another])
    write_atomically(path, b"newer")
    assert {*tmp_path.iterdir()} == {path, another}  # temporary files of other files stay


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    mine = temporary_name(path)
    mine.touch()
    assert temporary_files(tmp_path, "record.json") == [mine]
    assert abandoned_files(tmp_path) == []
    write_atomically(path, b"")
    assert mine.exists()


@pytest.mark.parametrize("name", [*EARLIER, ".record.json.elsewhere-123-456.01234567"])
def test_where_no_process_can_be_asked_the_files_age_counts(tmp_path: Path, name: str) -> None:
    path = aged(tmp_path / name, ABANDONED_SECONDS / 2)
    assert temporary_files(tmp_path) == [path]
    assert abandoned_files(tmp_path) == []
    aged(path, ABANDONED_SECONDS + 60)
    assert abandoned_files(tmp_path) == [path]


@pytest.mark.parametrize("name", NOT_OURS)
def test_other_files_are_not_temporary(tmp_path: Path, name: str) -> None:
    aged(tmp_path / name, 1e6)
    assert temporary_files(tmp_path) == []


def test_names_of_machines_do_not_confuse(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-3.cluster.example")
    temporary_name(tmp_path / "a.b-c.json").touch()
    assert len(temporary_files(tmp_path, "a.b-c.json")) == 1
    assert abandoned_files(tmp_path) == []


@pytest.fixture
def finished(tmp_path: Path) -> StoreEntry:
    record = tiny.run(STUDY, tmp_path, "student")
    return Store(tmp_path).run(record.id)


def clutter(entry: StoreEntry) -> set[Path]:
    """Create all leftovers of a process that is killed between its record and its end."""
    names = ("checkpoint.pt", "checkpoint.previous.pt", "failure.json", "progress.json", *EARLIER)
    for name in names:
        (entry.folder / name).write_text("left")
    dead = '{"token": "t", "host": "%s", "pid": 1, "started": "x", "job": null, "heartbeat": 0}'
    (entry.folder / "lease-4.json").write_text(dead % socket.gethostname())
    return {entry.folder / name for name in (*names, "lease-4.json")}


def test_what_is_left_of_a_finished_run_is_counted_and_cleared(finished: StoreEntry) -> None:
    before = {*finished.folder.iterdir()}
    leftovers = clutter(finished)
    size = sum(path.stat().st_size for path in leftovers)
    counted = count_leftovers([finished], [])
    assert (counted.files, counted.size) == (len(leftovers), size)
    tiny.run(STUDY, finished.folder.parents[1], "student")  # the run is finished already
    assert {*finished.folder.iterdir()} == before
    assert count_leftovers([finished], []).files == 0


def test_nothing_is_cleared_under_a_living_holder(finished: StoreEntry) -> None:
    leftovers = clutter(finished) - {finished.folder / "lease-4.json"}
    with hold_lease(finished.folder, wait=False):
        assert count_leftovers([finished], []).files == 0
        remove_leftovers(finished)
        assert all(path.exists() for path in leftovers)
    remove_leftovers(finished)
    assert not any(path.exists() for path in leftovers)


@pytest.mark.parametrize("damage", ["", None])
def test_checkpoints_are_cleared_only_where_there_is_a_sound_record(
    finished: StoreEntry, damage: str | None
) -> None:
    leftovers = clutter(finished)
    if damage is None:
        finished.record_path.unlink()
    else:
        finished.record_path.write_text(damage)
    remove_leftovers(finished)
    assert all(path.exists() for path in leftovers)


def test_a_finished_run_in_a_read_only_folder_is_not_an_error(
    finished: StoreEntry, monkeypatch
) -> None:
    clutter(finished)

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("skd.store.leftovers.hold_lease", read_only)
    try:
        remove_leftovers(finished)
    except SkdError as error:
        pytest.fail(str(error))


def test_the_folders_of_a_study_are_counted_too(tmp_path: Path) -> None:
    aged(tmp_path / EARLIER[0], 2 * ABANDONED_SECONDS)
    leftovers = count_leftovers([], [tmp_path, tmp_path / "report"])
    assert leftovers.files == 1
    assert str(leftovers).startswith("1 leftover temporary file of killed processes")
