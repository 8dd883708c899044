"""`skd merge`: the entries that it copies, and folders that it refuses."""

from pathlib import Path

import pytest

from skd.common.lease import read_holder
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.spec import DatasetSpec, ImportedTeacher
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.records import leave_dead_lease, make_card, make_failure
from tests.builders.result_sets import (
    CONTENT,
    LOGITS,
    WEIGHTS,
    files_under,
    put_run,
    put_teacher,
    sha256,
)

# Copied entries.


def test_finished_runs_and_teachers_are_copied_and_the_source_is_unchanged(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    student, kd = study.cell("resnet8", "student"), study.cell(tiny.PAIR, "kd")
    put_run(theirs, student)
    put_run(theirs, kd)
    teacher = put_teacher(theirs, study)
    unfinished = theirs.run(kd.runs[1])
    unfinished.write(make_failure(unfinished.id))
    put_run(ours, student, seed=1)
    before = files_under(theirs.root)
    status, out, err = skd("merge", "theirs")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "runs: 2 merged, 0 already present, 1 ignored (unfinished)",
        "teachers: 1 merged, 0 already present, 0 ignored (unfinished)",
    ]
    assert files_under(theirs.root) == before
    for entry in (theirs.run(student.runs[0]), theirs.run(kd.runs[0])):
        assert ours.run(entry.id).record() == entry.record()
        assert (ours.run(entry.id).folder / WEIGHTS).read_bytes() == CONTENT + WEIGHTS.encode()
        assert (ours.run(entry.id).folder / LOGITS).read_bytes() == CONTENT + LOGITS.encode()
        assert read_holder(ours.run(entry.id).folder) is None
    assert ours.teacher(teacher.id).card() == teacher.card()
    assert ours.teacher(teacher.id).record() == teacher.record()
    assert ours.run(student.runs[1]).record() is not None
    assert not ours.run(unfinished.id).folder.exists()


def test_files_that_are_not_entries_are_ignored(skd: Skd, study: Expansion, theirs: Store) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    (entry.folder.parent / ".trash").mkdir()
    (entry.folder.parent / "notes.txt").write_text("")
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "runs: 1 merged, 0 already present, 0 ignored" in out


def test_a_second_merge_finds_everything_there(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    put_run(theirs, study.cell("resnet8", "student"))
    put_teacher(theirs, study)
    skd("merge", "theirs")
    before = files_under(ours.root)
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert out.splitlines() == [
        "runs: 0 merged, 1 already present, 0 ignored (unfinished)",
        "teachers: 0 merged, 1 already present, 0 ignored (unfinished)",
    ]
    assert files_under(ours.root) == before


def test_time_place_and_cost_do_not_count_as_numbers(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    entry, mine = put_run(theirs, cell), put_run(ours, cell)
    record = mine.record()
    other = {
        "environment": {"torch": "9", "gpu": "another"},
        "execution": {"device": "cuda"},
        "cost": record.cost.model_copy(update={"train_seconds": 5.0, "sessions": 2}),
        "finished_at": "2027-01-01T00:00:00+00:00",
        "epochs": tuple(
            epoch.model_copy(update={"seconds": 9.0, "images_per_second": 9.0})
            for epoch in record.epochs
        ),
    }
    entry.write(record.model_copy(update=other))
    status, out, _ = skd("merge", "theirs")
    assert (status, "1 already present" in out) == (0, True)
    assert mine.record() == record


def test_a_dry_run_prints_its_plan_and_writes_nothing(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    put_run(theirs, study.cell("resnet8", "student"))
    status, out, _ = skd("merge", "theirs", "--dry-run")
    assert status == 0
    assert "runs: 1 would be merged, 0 already present" in out
    assert not ours.root.exists()


def test_missing_files_are_added_to_what_is_there(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    put_run(theirs, cell)
    mine = put_run(ours, cell, content=None)
    assert not mine.weights_path.exists()
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "0 merged, 1 already present (1 of them got missing files)" in out
    assert mine.weights_path.read_bytes() == CONTENT + WEIGHTS.encode()
    assert mine.logits_path.is_file()


def test_a_record_without_files_is_copied_alone(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"), content=None)
    teacher = put_teacher(theirs, study, content=None)
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "runs with a record only, without weights: 1" in out
    assert f"which cannot be used for training: {teacher.id}" in out
    assert ours.run(entry.id).record() == entry.record()
    assert not ours.run(entry.id).weights_path.exists()


def test_a_finished_run_replaces_one_that_was_started_here(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    mine = ours.run(entry.id)
    mine.write(make_failure(mine.id))
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "progress.json"):
        (mine.folder / name).write_text("{}")
    leave_dead_lease(mine.folder)
    assert skd("merge", "theirs")[0] == 0
    assert mine.record() == entry.record()
    names = {path.name for path in mine.folder.iterdir()}
    assert names == {"spec.json", "record.json", WEIGHTS, LOGITS}


def test_links_of_the_source_become_files(
    skd: Skd, study: Expansion, theirs: Store, ours: Store, tmp_path: Path
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    entry.weights_path.rename(tmp_path / "elsewhere")
    entry.weights_path.symlink_to(tmp_path / "elsewhere")
    entry.logits_path.unlink()
    entry.logits_path.symlink_to(tmp_path / "gone")
    assert skd("merge", "theirs")[0] == 0
    mine = ours.run(entry.id)
    assert mine.weights_path.is_file()
    assert not mine.weights_path.is_symlink()
    assert not mine.logits_path.exists()


def test_an_imported_teacher_comes_with_its_card_alone(
    skd: Skd, theirs: Store, ours: Store
) -> None:
    spec = ImportedTeacher(network="resnet8", dataset=DatasetSpec(name="digits"), sha256="a" * 64)
    entry = theirs.teacher(spec.identity)
    entry.folder.mkdir(parents=True)
    entry.weights_path.write_bytes(CONTENT)
    entry.logits_path.write_bytes(b"logits")
    card = make_card(
        entry.id,
        kind="imported",
        network="resnet8",
        origin="imported from x.pth",
        test_top1=80.0,
        sha256=sha256(CONTENT),
        source_sha256="a" * 64,
    )
    entry.write(card)
    assert skd("merge", "theirs")[0] == 0
    assert ours.teacher(entry.id).card() == card
    assert ours.teacher(entry.id).logits_path.read_bytes() == b"logits"
    ours.teacher(entry.id).write(card.model_copy(update={"test_top1": 81.0}))
    status, out, _ = skd("merge", "theirs")
    assert status == 2
    assert "different: top-1" in out


def test_teachers_go_where_they_are_shared_and_come_from_the_source(
    skd: Skd,
    study: Expansion,
    theirs: Store,
    ours: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = put_teacher(theirs, study)
    monkeypatch.setenv("SKD_TEACHERS", str(tmp_path / "shared"))
    status, out, _ = skd("merge", "theirs")
    assert (status, "teachers: 1 merged" in out) == (0, True)
    assert StoreEntry(tmp_path / "shared" / teacher.id).card() is not None
    assert not (ours.root / "teachers").exists()


# Folders without results.


def test_a_source_that_is_not_a_results_folder_is_refused(
    skd: Skd, study: Expansion, theirs: Store, tmp_path: Path
) -> None:
    put_run(theirs, study.cell("resnet8", "student"))
    (tmp_path / "file").write_text("")
    (tmp_path / "clone").mkdir()
    theirs.root.rename(tmp_path / "clone" / "results")
    for source, hint in {
        "nowhere": "it does not exist",
        "file": "it is a file",
        "clone": "clone/results does",
        "clone/results/runs": "clone/results does",
    }.items():
        status, out, err = skd("merge", source)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"skd: {source} is not a results folder: " in err
        assert hint in err


def test_a_folder_is_not_merged_into_itself(
    skd: Skd, study: Expansion, ours: Store, tmp_path: Path
) -> None:
    put_run(ours, study.cell("resnet8", "student"))
    (tmp_path / "link").symlink_to(ours.root)
    for source in ("results", "link"):
        status, _, err = skd("merge", source)
        assert status == 2
        assert "is the results folder itself" in err
