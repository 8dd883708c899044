"""The store: the state of a run by its files, and files after a crash."""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from skd.common.errors import SkdWarning
from skd.common.files import sha256_of, write_atomically, write_json
from skd.common.frozen import FrozenModel
from skd.common.lease import hold_lease
from skd.expansion.expand import expand_study
from skd.jobs.overview import OverviewRow, study_overview
from skd.store.outcomes import cell_result, run_outcome
from skd.store.records import Accuracy, Failure, Record, TeacherCard
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.expansion import Expansion
from skd.study.spec import Recipe
from tests.builders.records import card_of, leave_dead_lease, make_card, make_failure, make_record
from tests.builders.sheets import SHEET


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    sheet = tmp_path_factory.mktemp("studies") / "mine.yaml"
    two = {**SHEET, "pairs": SHEET["pairs"][:2], "seeds": 3}
    sheet.write_text(yaml.safe_dump(two), encoding="utf-8")
    return expand_study(str(sheet))


@pytest.fixture
def entry(study: Expansion, tmp_path: Path) -> StoreEntry:
    return Store(tmp_path).run(study.cells[-1].spec.identity)


@pytest.fixture
def record(study: Expansion, entry: StoreEntry) -> Record:
    new_record = make_record(study.cells[-1].spec, entry.id)
    return new_record.model_copy(update={"files": {"weights.safetensors": "1" * 64}})


# A run's state.


def test_a_run_goes_from_missing_to_done(entry: StoreEntry, record: Record) -> None:
    def now() -> tuple[str, str | None]:
        outcome = run_outcome(entry, 5)
        assert (outcome.id, outcome.seed) == (entry.id, 5)
        return outcome.outcome, outcome.reason

    assert now() == ("missing", None)
    with hold_lease(entry.folder, wait=False):
        state, reason = now()
        assert state == "running"
        assert f"process {os.getpid()} on {socket.gethostname()}" in reason
    assert now() == ("missing", None)
    (entry.folder / "checkpoint.pt").write_bytes(b"")
    assert now() == ("interrupted", None)
    leave_dead_lease(entry.folder)
    assert now() == ("interrupted", None)
    entry.write(make_failure(entry.id))
    assert now() == ("failed", "loss is NaN")
    with hold_lease(entry.folder, wait=False):  # tried again
        assert now()[0] == "running"
        entry.write(record)
        assert now() == ("done", None)
    assert run_outcome(entry, 5).last_top1 == 70.0
    assert run_outcome(entry, 5).best_top1 == 71.0


def test_a_previous_checkpoint_alone_is_an_interrupted_run(entry: StoreEntry) -> None:
    entry.folder.mkdir(parents=True)
    (entry.folder / "checkpoint.previous.pt").write_bytes(b"")
    assert run_outcome(entry, 0).outcome == "interrupted"


def test_a_record_clears_the_failure_note_and_nothing_else_does(
    entry: StoreEntry, record: Record
) -> None:
    entry.write(make_failure(entry.id))
    entry.write(make_card(entry.id))
    assert entry.failure() == make_failure(entry.id)
    entry.write(record)
    assert entry.failure() is None
    assert not entry.failure_path.exists()


# Reading back.


def test_what_is_written_is_read_back_as_it_was(entry: StoreEntry, record: Record) -> None:
    assert entry.record() is entry.failure() is entry.card() is None
    entry.write(record)
    entry.write(card_of(record))
    assert entry.record() == record
    assert entry.record().spec.identity == record.spec.identity
    assert entry.card() == card_of(record)


def damaged(text: str) -> dict[str, str]:
    other_schema, other_spec = json.loads(text), json.loads(text)
    other_schema["schema_version"] = 2
    other_spec["spec"]["recipe"]["epochs"] = "many"
    return {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "not an object": "[]",
        "another schema version": json.dumps(other_schema),
        "an impossible spec": json.dumps(other_spec),
        "an unknown key": json.dumps({**json.loads(text), "extra": 1}),
        "a key missing": json.dumps({k: v for k, v in json.loads(text).items() if k != "last"}),
    }


@pytest.mark.parametrize("damage", damaged('{"spec": {"recipe": {}}}'))
def test_a_record_that_cannot_be_read_is_an_error_that_names_the_file(
    entry: StoreEntry, record: Record, damage: str
) -> None:
    entry.write(record)
    entry.record_path.write_text(damaged(entry.record_path.read_text())[damage])
    with pytest.raises(StoreError, match=re.escape(str(entry.record_path))) as caught:
        entry.record()
    assert "Move it away" in str(caught.value)
    outcome = run_outcome(entry, 0)
    assert (outcome.outcome, outcome.reason) == ("unreadable", str(caught.value))


@pytest.mark.parametrize(
    "content", [b"\x80\xff\x00", b"", b"null", b"{}", b'{"failed_at": "yesterday"}', None]
)
def test_a_failure_note_that_cannot_be_read_does_not_keep_a_run_from_being_tried(
    entry: StoreEntry, content: bytes | None
) -> None:
    entry.folder.mkdir(parents=True)
    if content is None:
        entry.failure_path.mkdir()
    else:
        entry.failure_path.write_bytes(content)
    with pytest.warns(SkdWarning, match=re.escape(str(entry.failure_path))):
        assert entry.failure_or_none() is None
    assert run_outcome(entry, 0).outcome == "unreadable"


@pytest.mark.parametrize("when", ["yesterday", "2026-01-01T00:00:00", ""])
def test_a_failure_note_without_a_time_is_ignored(entry: StoreEntry, when: str) -> None:
    entry.write(make_failure(entry.id))
    note = json.loads(entry.failure_path.read_text())
    entry.failure_path.write_text(json.dumps({**note, "failed_at": when}))
    with pytest.warns(SkdWarning, match="it is ignored"):
        assert entry.failure_or_none() is None
    outcome = run_outcome(entry, 0)
    assert outcome.outcome == "unreadable"
    assert f"failed_at: must be a date and time with a time zone, got '{when}'" in outcome.reason


def test_a_record_from_before_a_field_keeps_the_fields_neutral_value(
    entry: StoreEntry, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    neutral = {Recipe: {"nesterov": True}}
    monkeypatch.setattr("skd.common.frozen._neutral_values", lambda model: neutral.get(model, {}))
    changed = record.spec.recipe.model_copy(update={"nesterov": True})
    spec = record.spec.model_copy(update={"recipe": changed})
    entry = StoreEntry(entry.folder.with_name(spec.identity))
    entry.write(record.model_copy(update={"spec": spec, "id": entry.id}))
    assert "nesterov" not in json.loads(entry.record_path.read_text())["spec"]["recipe"]
    assert entry.record().spec.recipe.nesterov is True


# Files are written completely or not at all.


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize("where", ["pathlib.Path.replace", "os.fsync"])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "new folder" / "file.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(OSError, match="no space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_json_with_nan_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": "é"})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": "é"}
    assert "é" in path.read_text()


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


# A study's state.


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.jobs.slurm.shutil.which", lambda _: None)


def rows_of(study: Expansion, store: Store) -> tuple[dict[str, OverviewRow], list[str]]:
    """Return the rows of the overview by their key, and the lines."""
    overview = study_overview(study, store, store.root)
    return {row.key: row for row in overview.rows}, overview.lines


def test_the_status_table_counts_each_state(study: Expansion, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (teacher for teacher, _ in study.pairs)
    taught, alone = study.cell(f"{first}--resnet8", "kd"), study.cell("resnet8", "student")
    done, failed, unfinished = (store.run(alone.runs[seed]) for seed in (0, 1, 2))
    done.write(make_record(alone.run(0), done.id, top1=80.0))
    failed.write(make_failure(failed.id, "it [broke]"))
    unfinished.folder.mkdir(parents=True)
    (unfinished.folder / "checkpoint.pt").write_bytes(b"")
    for seed, top1 in ((0, 70.0), (1, 71.0)):
        store.run(taught.runs[seed]).write(make_record(taught.run(seed), taught.runs[seed], top1))
    teacher = store.teacher(study.teacher(first).id)
    teacher.write(make_card(teacher.id))
    with hold_lease(store.run(taught.runs[2]).folder, wait=False):
        rows, lines = rows_of(study, store)
        totals = study_overview(study, store, store.root).totals
    counts = {key: row.counts for key, row in rows.items()}
    assert counts[f"teacher {first}"] == {"done": 1}
    assert counts[f"teacher {second}"] == {"missing": 1}
    assert counts["resnet8/student"] == {"done": 1, "failed": 1, "interrupted": 1}
    assert counts[f"{first}--resnet8/kd"] == {"done": 2, "running": 1}
    assert counts[f"{second}--resnet8/skd"] == {"missing": 3}
    accuracies = {key: row.accuracies for key, row in rows.items() if row.accuracies}
    assert accuracies == {
        f"teacher {first}": (97.25,),
        "resnet8/student": (80.0,),
        f"{first}--resnet8/kd": (70.0, 71.0),
    }
    missing = sum(len(cell.runs) for cell in study.cells) - 6
    assert {state: n for state, n in totals.items() if n} == {
        "done": 3,
        "running": 1,
        "failed": 1,
        "interrupted": 1,
        "missing": missing,
    }
    assert len(rows) == 2 + len(study.cells)
    assert f"resnet8/student seed 1 ({failed.id}) failed: it [broke]; " in " ".join(lines)
    assert any(line.startswith(f"{taught.key} seed 2") for line in lines)
    assert lines[2:] == ["3 finished runs do not say which code trained them: code unknown"]


def test_a_trained_teacher_without_its_card_is_not_done(study: Expansion, tmp_path: Path) -> None:
    store, node = Store(tmp_path), study.teachers[0]
    store.teacher(node.id).write(make_record(node.spec.run, node.id))
    rows, _ = rows_of(study, store)
    row = rows[f"teacher {node.name}"]
    assert (row.counts, row.accuracies) == ({"interrupted": 1}, ())


def test_a_run_whose_record_is_damaged_is_unreadable(study: Expansion, tmp_path: Path) -> None:
    store, cell = Store(tmp_path), study.cell("resnet8", "student")
    store.run(cell.runs[1]).folder.mkdir(parents=True)
    store.run(cell.runs[1]).record_path.write_text("{")
    result = cell_result(study, cell, store)
    assert (result.study, result.cell) == ("mine", "resnet8/student")
    assert [run.outcome for run in result.runs] == ["missing", "unreadable", "missing"]
    assert [run.seed for run in result.runs] == [0, 1, 2]
    assert "record.json is damaged" in result.runs[1].reason


def test_teachers_may_be_shared_by_several_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours = Store(tmp_path / "mine"), Store(tmp_path / "yours")
    assert mine.teacher("x").folder != yours.teacher("x").folder
    monkeypatch.setenv("SKD_TEACHERS", str(tmp_path / "shared"))
    mine.teacher("x").write(make_card("x"))
    assert yours.teacher("x").card() == make_card("x")
    assert mine.run("x").folder == tmp_path / "mine" / "runs" / "x"


def test_records_refuse_unknown_keys_as_specs_do() -> None:
    assert all(issubclass(model, FrozenModel) for model in (Record, Failure, TeacherCard))
    with pytest.raises(ValueError, match="did you mean 'top1'"):
        Accuracy(epoch=1, top1=1.0, top5=1.0, top_1=1.0)
