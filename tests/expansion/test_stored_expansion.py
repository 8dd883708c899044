"""An expansion is stored, read back, and repeated after a change."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_path, load_expansion, write_expansion
from tests.builders.sheets import IMPORT, put, teacher_ids

# The expansion as a file.


def no_process(*_: Any, **__: Any) -> None:
    raise AssertionError("a process was started")


def test_an_expansion_is_read_back_as_it_was(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    study = expanded(IMPORT)
    write_expansion(study, tmp_path / "results")
    monkeypatch.setattr("skd.study.expansion_files.subprocess", SimpleNamespace(run=no_process))
    assert load_expansion("mine", tmp_path / "results") == study


def test_an_expansion_is_made_once_and_again_when_something_changed(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, started = tmp_path / "results", []

    # The first expansion runs in a process as usual; the others run in this one to be quick.
    def counted(command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        if len(started) == 1:
            return subprocess.run(command, **named)
        name, folder = command[command.index("expand") + 1], command[-1]
        write_expansion(expand_study(name), Path(folder))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("skd.study.expansion_files.subprocess", SimpleNamespace(run=counted))
    monkeypatch.setenv("SKD_T", str(tmp_path))

    def load(times: int) -> Expansion:
        study = load_expansion("mine", results)
        assert len(started) == times
        return study

    write(IMPORT)
    first = load(1)
    stamp = expansion_path(results, "mine").stat().st_mtime_ns
    assert load(1) == first
    assert expansion_path(results, "mine").stat().st_mtime_ns == stamp
    write(IMPORT, put("seeds", 3))
    assert load(2).seeds == (0, 1, 2)
    (tmp_path / "big.pth").write_bytes(b"weights")  # the checkpoint arrives
    assert load(3).teacher("big").id != first.teacher("big").id
    expansion_path(results, "mine").write_text('{"sources": ')
    load(4)
    load(4)


def test_a_removed_unpinned_checkpoint_keeps_the_hash_it_had(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint, results = tmp_path / "teacher.pth", tmp_path / "results"
    checkpoint.write_bytes(b"weights")
    write(put("teachers", "big", {"network": "resnet20", "import": {"file": str(checkpoint)}}))
    before = expand_study("mine", results)
    write_expansion(before, results)
    checkpoint.unlink()
    assert teacher_ids(expand_study("mine", results)) == teacher_ids(before)
    assert teacher_ids(expand_study("mine", tmp_path / "others")) != teacher_ids(before)
