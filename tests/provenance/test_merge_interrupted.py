"""`skd merge` is killed, its source changes, or runs are started meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skd.common.lease import hold_lease, read_holder
from skd.provenance import merge_execution
from skd.store.store import Store
from skd.study.expansion import Expansion
from tests.builders.commands import Skd
from tests.builders.records import leave_dead_lease
from tests.builders.result_sets import LOGITS, WEIGHTS, edit, put_run

# Killed, full, or changed meanwhile.


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left on device")])
def test_a_merge_that_ends_in_the_middle_is_repeated(
    skd: Skd,
    study: Expansion,
    theirs: Store,
    ours: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    cell = study.cell("resnet8", "student")
    entries = sorted((put_run(theirs, cell, seed) for seed in (0, 1)), key=lambda entry: entry.id)
    partial = ours.run(entries[1].id)
    partial.folder.mkdir(parents=True)
    (partial.folder / "checkpoint.pt").write_bytes(b"here")
    copied: list[Path] = []

    def copy_three(source: Path, target: Path, expected: str) -> None:
        if len(copied) == 3:
            raise error
        copied.append(target)
        copy(source, target, expected)

    copy = merge_execution.copy_verified
    with monkeypatch.context() as patch:
        patch.setattr(merge_execution, "copy_verified", copy_three)
        status, _, err = skd("merge", "theirs")
    assert status != 0
    if isinstance(error, OSError):
        assert status == 2
        assert f"run {partial.id}: no space left on device. 1 of 2 were merged" in err
    assert ours.run(entries[0].id).record() is not None
    assert partial.record() is None  # its record would have been last
    assert (partial.folder / "checkpoint.pt").read_bytes() == b"here"
    assert read_holder(partial.folder) is None
    assert skd("merge", "theirs")[0] == 0
    assert partial.record() == entries[1].record()
    assert not (partial.folder / "checkpoint.pt").exists()


def test_what_a_kill_left_is_cleared_by_the_next_merge(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    put_run(theirs, cell)
    put_run(theirs, cell, seed=1)
    mine = put_run(ours, cell)  # killed between its record and its checkpoints' removal
    (mine.folder / "checkpoint.pt").write_bytes(b"old")
    half = ours.run(cell.runs[1])  # killed while its weights were written
    half.folder.mkdir(parents=True)
    (half.folder / f".{WEIGHTS}.0123").write_bytes(b"half")
    leave_dead_lease(half.folder)
    assert skd("merge", "theirs")[0] == 0
    assert not (mine.folder / "checkpoint.pt").exists()
    names = {path.name for path in half.folder.iterdir()}
    assert names == {"spec.json", "record.json", WEIGHTS, LOGITS}


def test_a_source_that_changes_while_it_is_merged_is_noticed(
    skd: Skd, study: Expansion, theirs: Store, ours: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    carry_out = merge_execution.execute_merge

    def after(change: Callable[[], None]) -> None:
        def changed(*arguments: Any) -> None:
            change()
            carry_out(*arguments)

        monkeypatch.setattr("skd.cli.provenance.execute_merge", changed)
        status, _, err = skd("merge", "theirs")
        assert status == 2
        assert "changed since it was checked" in err
        assert ours.run(entry.id).record() is None
        assert not ours.run(entry.id).weights_path.exists()

    weights = entry.weights_path.read_bytes()
    after(lambda: entry.weights_path.write_bytes(b"other"))
    entry.weights_path.write_bytes(weights)
    after(lambda: edit(entry.record_path, lambda data: data["last"].update(top1=1.0)))


def test_a_run_that_is_taken_or_finished_while_others_are_merged_is_left_alone(
    skd: Skd, study: Expansion, theirs: Store, ours: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = study.cell("resnet8", "student")
    entry = put_run(theirs, cell)
    carry_out = merge_execution.execute_merge

    def taken(*arguments: Any) -> None:
        with hold_lease(ours.run(entry.id).folder, wait=False):
            carry_out(*arguments)

    monkeypatch.setattr("skd.cli.provenance.execute_merge", taken)
    status, _, err = skd("merge", "theirs")
    assert (status, "is being trained by" in err) == (2, True)
    assert ours.run(entry.id).record() is None

    def finished(*arguments: Any) -> None:
        put_run(ours, cell, top1=50.0)
        carry_out(*arguments)

    monkeypatch.setattr("skd.cli.provenance.execute_merge", finished)
    status, _, err = skd("merge", "theirs")
    assert (status, "since it was checked, different: " in err) == (2, True)
    assert ours.run(entry.id).record().last.top1 == 50.0
