"""`skd merge`: what is brought, what is refused, and that a conflict or a kill harms nothing."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skd.common.lease import hold_lease, read_holder
from skd.provenance import merge_execution
from skd.store.record_differences import record_differences
from skd.store.records import Collapse, Record, TeacherCard
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Cell, Expansion, write_expansion
from skd.study.spec import DatasetSpec, ImportedTeacher
from tests.builders import tiny
from tests.store.test_store import card_of, leave_dead_lease, make_card, make_failure, make_record

CONTENT = b"weights of one machine"
TEACHER_WEIGHTS = b"weights of the teacher"
WEIGHTS, LOGITS = "weights.safetensors", "test_logits.safetensors"
Skd = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def study() -> Expansion:
    return tiny.study()


@pytest.fixture(autouse=True)
def beside_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKD_TEACHERS", raising=False)


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    return Store(tmp_path / "theirs")


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(entry: StoreEntry, record: Record, content: bytes | None = CONTENT) -> Record:
    """Leave a record, with its weights and logits unless there is no content."""
    files = {name: sha256((content or CONTENT) + name.encode()) for name in (WEIGHTS, LOGITS)}
    record = record.model_copy(update={"files": files})
    entry.folder.mkdir(parents=True, exist_ok=True)
    for name in files if content else ():
        (entry.folder / name).write_bytes(content + name.encode())
    entry.write(record)
    return record


def put_run(store: Store, cell: Cell, seed: int = 0, **changes: Any) -> StoreEntry:
    entry = store.run(cell.runs[seed])
    content = changes.pop("content", CONTENT)
    put(entry, make_record(cell.run(seed), entry.id, **changes), content)
    return entry


def put_teacher(store: Store, study: Expansion, top1: float = 90.0, **changes: Any) -> StoreEntry:
    """Leave a trained teacher: its record and its card."""
    node = study.teachers[0]
    entry = store.teacher(node.id)
    content = changes.pop("content", TEACHER_WEIGHTS)
    record = put(entry, make_record(node.spec.run, node.id, top1), content)
    entry.write(card_of(record))
    return entry


def files_under(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# What is brought.


def test_finished_runs_and_teachers_are_brought_and_the_source_is_left_alone(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    student, kd = study.cell("resnet8", "student"), study.cell(tiny.PAIR, "kd")
    put_run(theirs, student)
    put_run(theirs, kd)
    teacher = put_teacher(theirs, study)
    begun = theirs.run(kd.runs[1])
    begun.write(make_failure(begun.id))
    put_run(ours, student, seed=1)
    before = files_under(theirs.root)
    status, out, err = skd("merge", "theirs")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "runs: 2 merged, 0 there already, 1 ignored (unfinished)",
        "teachers: 1 merged, 0 there already, 0 ignored (unfinished)",
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
    assert not ours.run(begun.id).folder.exists()


def test_what_is_no_entry_is_not_looked_at(skd: Skd, study: Expansion, theirs: Store) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    (entry.folder.parent / ".trash").mkdir()
    (entry.folder.parent / "notes.txt").write_text("")
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "runs: 1 merged, 0 there already, 0 ignored" in out


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
        "runs: 0 merged, 1 there already, 0 ignored (unfinished)",
        "teachers: 0 merged, 1 there already, 0 ignored (unfinished)",
    ]
    assert files_under(ours.root) == before


def test_time_place_and_cost_are_no_numbers(
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
    assert (status, "1 there already" in out) == (0, True)
    assert mine.record() == record


def test_a_dry_run_says_it_and_writes_nothing(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    put_run(theirs, study.cell("resnet8", "student"))
    status, out, _ = skd("merge", "theirs", "--dry-run")
    assert status == 0
    assert "runs: 1 would be merged, 0 there already" in out
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
    assert "0 merged, 1 there already (1 of them got missing files)" in out
    assert mine.weights_path.read_bytes() == CONTENT + WEIGHTS.encode()
    assert mine.logits_path.is_file()


def test_a_record_without_files_travels_alone(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"), content=None)
    teacher = put_teacher(theirs, study, content=None)
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "runs that came as a record only, without weights: 1" in out
    assert f"without their weights, and so cannot teach: {teacher.id}" in out
    assert ours.run(entry.id).record() == entry.record()
    assert not ours.run(entry.id).weights_path.exists()


def test_a_finished_run_replaces_one_that_was_begun_here(
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
    card = TeacherCard(
        id=entry.id,
        kind="imported",
        network="resnet8",
        dataset="digits",
        origin="imported from x.pth",
        test_top1=80.0,
        test_top5=99.0,
        sha256=sha256(CONTENT),
        source_sha256="a" * 64,
        parameters=1,
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


# What is no results folder.


def test_a_source_that_is_no_results_folder_is_said_to_be_none(
    skd: Skd, study: Expansion, theirs: Store, tmp_path: Path
) -> None:
    put_run(theirs, study.cell("resnet8", "student"))
    (tmp_path / "file").write_text("")
    (tmp_path / "clone").mkdir()
    theirs.root.rename(tmp_path / "clone" / "results")
    for source, hint in {
        "nowhere": "there is nothing",
        "file": "it is a file",
        "clone": "clone/results does",
        "clone/results/runs": "clone/results does",
    }.items():
        status, out, err = skd("merge", source)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"skd: {source} is no results folder: " in err
        assert hint in err


def test_a_folder_is_not_merged_into_itself(
    skd: Skd, study: Expansion, ours: Store, tmp_path: Path
) -> None:
    put_run(ours, study.cell("resnet8", "student"))
    (tmp_path / "link").symlink_to(ours.root)
    for source in ("results", "link"):
        status, _, err = skd("merge", source)
        assert status == 2
        assert "is the results folder that is merged into" in err


# What is refused.


def test_what_is_not_sound_is_refused_and_the_rest_is_merged(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    bad, good = put_run(theirs, cell), put_run(theirs, cell, seed=1)
    text = bad.record_path.read_text()

    def refused(words: str) -> None:
        status, out, err = skd("merge", "theirs")
        assert status == 1
        assert "1 refused" in out
        assert err.startswith(f"refused: run {bad.id}: ")
        assert err.count("\n") == 1
        assert words in err
        assert ours.run(good.id).record() is not None
        assert not ours.run(bad.id).folder.exists()

    bad.record_path.write_text(text[: len(text) // 2])
    refused("record.json is damaged")
    for words, change in {
        "has schema version 2, and this code reads 1": lambda d: d.update(schema_version=2),
        f"it is that of {'0' * 16}": lambda d: d.update(id="0" * 16),
        "the identity of its spec is": lambda d: d["spec"].update(seed=12),
        "NaN is no JSON number": lambda d: d["last"].update(top1=float("nan")),
        "epoch 1: test_top5 101 is no percentage": lambda d: d["epochs"][0].update(test_top5=101),
        "names a file '../../gone.safetensors'": lambda d: d["files"].update(
            {"../../gone.safetensors": "0" * 64}
        ),
        "unknown key 'extra'": lambda d: d.update(extra=1),
    }.items():
        bad.record_path.write_text(text)
        edit(bad.record_path, change)
        refused(words)
    bad.record_path.write_text(text)
    bad.weights_path.write_bytes(b"tampered")
    refused(f"has sha256 {sha256(b'tampered')}")
    bad.record_path.unlink()
    os.mkfifo(bad.record_path)
    refused("record.json is damaged: it is no regular file")


def test_a_run_under_another_name_is_refused(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    entry.folder.rename(entry.folder.with_name("f" * 16))
    status, _, err = skd("merge", "theirs")
    assert status == 1
    assert f"it is that of {entry.id}: the folder was renamed" in err
    assert not (ours.root / "runs").exists()


def test_a_teacher_that_does_not_agree_with_itself_is_refused(
    skd: Skd, study: Expansion, theirs: Store
) -> None:
    entry = put_teacher(theirs, study)
    card = entry.card()
    entry.write(card.model_copy(update={"test_top1": 99.0}))
    status, _, err = skd("merge", "theirs")
    assert (status, "its test_top1 is not that of the record beside it" in err) == (1, True)
    entry.write(card.model_copy(update={"id": "0" * 16}))
    status, _, err = skd("merge", "theirs")
    assert (status, f"it is that of {'0' * 16}" in err) == (1, True)
    entry.write(card)
    entry.record_path.unlink()
    status, _, err = skd("merge", "theirs")
    assert (status, "its record is not there" in err) == (1, True)


def test_a_trained_teacher_without_its_card_is_unfinished(
    skd: Skd, study: Expansion, theirs: Store
) -> None:
    put_teacher(theirs, study).card_path.unlink()
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "teachers: 0 merged, 0 there already, 1 ignored (unfinished)" in out


# Conflicts.


def conflict(skd: Skd, *arguments: str) -> tuple[str, str]:
    before = files_under(Path("results"))
    status, out, err = skd("merge", "theirs", *arguments)
    assert status == 2
    assert err.startswith("skd: nothing is merged: ")
    assert err.count("\n") == 1
    assert files_under(Path("results")) == before
    return out, err


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_other_numbers_are_a_conflict_that_leaves_everything_as_it_was(
    skd: Skd, study: Expansion, theirs: Store, ours: Store, arguments: tuple[str, ...]
) -> None:
    student, kd = study.cell("resnet8", "student"), study.cell(tiny.PAIR, "kd")
    put_run(theirs, student, seed=1)  # nothing is wrong with it
    for cell in (student, kd):
        put_run(ours, cell, top1=70.0)
        theirs_entry = put_run(theirs, cell, top1=71.5, content=b"others")
        there = {"gpu": "NVIDIA [H100]", "torch": "2.99"}
        record = theirs_entry.record()
        update = {"environment": there, "execution": {"device": "cuda"}}
        theirs_entry.write(record.model_copy(update=update))
    write_expansion(study, Path("theirs"))
    out, err = conflict(skd, *arguments)
    assert "2 conflicts" in err
    assert "compare the two with `skd diff`" in err
    assert f"run {student.runs[0]} (tiny: resnet8/student seed 0)" in out
    assert f"run {kd.runs[0]} (tiny: {tiny.PAIR}/kd seed 0)" in out
    assert f"different: epochs, from 1, last, best, {WEIGHTS}'s content" in out
    here, there = (
        next(line.split() for line in out.splitlines() if line.split()[:1] == [side])
        for side in ("here", "there")
    )
    assert here == ["here", "70.00", "%", "71.00", "%", "CPU", "2"]
    assert there == ["there", "71.50", "%", "72.50", "%", "NVIDIA", "[H100]", "2.99"]


def test_a_conflict_says_whether_the_same_code_made_both(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    mine, yours = put_run(ours, cell, top1=70.0), put_run(theirs, cell, top1=71.5)

    def made_by(here: dict[str, Any], there: dict[str, Any]) -> str:
        for entry, environment in ((mine, here), (yours, there)):
            changes = {"environment": {"torch": "2", **environment}}
            entry.write(entry.record().model_copy(update=changes))
        return conflict(skd)[0]

    one = {"git_commit": None, "git_clean": None, "sources": "a" * 16}
    assert f"made by the same code: sources {'a' * 16}" in made_by(one, one)
    other = made_by(one, {**one, "sources": "b" * 16})
    assert "made by different code" in other
    assert f"sources {'a' * 16} (here), sources {'b' * 16} (there)" in other
    assert "not known whether the same code made both" in made_by({}, one)


@pytest.mark.parametrize(
    ("name", "change"),
    {
        "epochs, from 1": lambda r: {
            "epochs": (r.epochs[0].model_copy(update={"test_loss": 2.0}), *r.epochs[1:])
        },
        "epochs, from 4": lambda r: {"epochs": (*r.epochs, r.epochs[0])},
        "last": lambda r: {"last": r.last.model_copy(update={"top5": 1.0})},
        "best": lambda r: {"best": r.best.model_copy(update={"epoch": 3})},
        "collapse": lambda r: {"collapse": Collapse(collapsed=True, reason="gone")},
        "number of classes": lambda r: {"num_classes": 11},
        "the teacher's weights": lambda r: {"teacher": make_card("x")},
        f"{LOGITS}'s content": lambda r: {"files": {LOGITS: "0" * 64}},
    }.items(),
)
def test_each_number_counts(
    study: Expansion, name: str, change: Callable[[Record], dict[str, Any]]
) -> None:
    record = make_record(study.cells[0].run(0), "x")
    other = record.model_copy(update=change(record))
    assert record_differences(record, record) == []
    assert record_differences(record, other) == record_differences(other, record) == [name]


def test_a_run_being_trained_here_is_a_conflict(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    with hold_lease(ours.run(entry.id).folder, wait=False):
        out, err = conflict(skd)
    assert f"being trained here, by process {os.getpid()}" in out
    assert "merge again once it is done" in err
    assert "skd diff" not in err


def test_a_damaged_record_here_is_a_conflict_that_names_it(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    ours.run(entry.id).folder.mkdir(parents=True)
    ours.run(entry.id).record_path.write_text("{")
    out, _ = conflict(skd)
    assert f"results/runs/{entry.id}/record.json is damaged" in out
    assert "move it away" in out


def test_another_teacher_of_the_same_identity_is_a_conflict(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    put_teacher(theirs, study, 90.0, content=b"theirs")
    put_teacher(ours, study, 91.0, content=b"ours")
    out, _ = conflict(skd)
    assert f"teacher {study.teachers[0].id}" in out
    assert "the weights" in out


def test_a_run_taught_by_other_weights_than_those_here_is_a_conflict(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    mine = put_teacher(ours, study, 91.0, content=b"ours")
    entry = put_run(theirs, study.cell(tiny.PAIR, "kd"))
    other = mine.card().model_copy(update={"sha256": "1" * 64, "test_top1": 88.0})
    entry.write(entry.record().model_copy(update={"teacher": other}))
    out, _ = conflict(skd)
    assert f"with other weights than it has here ({mine.id})" in out
    assert "91.00 %" in out
    assert "88.00 %" in out
    entry.write(entry.record().model_copy(update={"teacher": mine.card()}))
    assert skd("merge", "theirs")[0] == 0


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
    begun = ours.run(entries[1].id)
    begun.folder.mkdir(parents=True)
    (begun.folder / "checkpoint.pt").write_bytes(b"here")
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
        assert f"run {begun.id}: no space left on device. 1 of 2 were brought" in err
    assert ours.run(entries[0].id).record() is not None
    assert begun.record() is None  # its record would have been last
    assert (begun.folder / "checkpoint.pt").read_bytes() == b"here"
    assert read_holder(begun.folder) is None
    assert skd("merge", "theirs")[0] == 0
    assert begun.record() == entries[1].record()
    assert not (begun.folder / "checkpoint.pt").exists()


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

        monkeypatch.setattr("skd.cli.provenance.carry_out", changed)
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

    monkeypatch.setattr("skd.cli.provenance.carry_out", taken)
    status, _, err = skd("merge", "theirs")
    assert (status, "is being trained by" in err) == (2, True)
    assert ours.run(entry.id).record() is None

    def finished(*arguments: Any) -> None:
        put_run(ours, cell, top1=50.0)
        carry_out(*arguments)

    monkeypatch.setattr("skd.cli.provenance.carry_out", finished)
    status, _, err = skd("merge", "theirs")
    assert (status, "since it was checked, different: " in err) == (2, True)
    assert ours.run(entry.id).record().last.top1 == 50.0
