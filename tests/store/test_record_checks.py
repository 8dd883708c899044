"""Stored runs are valid or have a reason, and every reader reports the same."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from report.frames.run_state import read_run_state
from skd.analyses.errors import UnusableError
from skd.analyses.stored_networks import stored_run
from skd.common.files import UnwritableError, read_json, write_json
from skd.planning.timings import load_timings
from skd.provenance.entry_reading import read_record
from skd.provenance.source_checks import RefusedError, check_entry
from skd.store.outcomes import cell_result, teacher_outcome
from skd.store.record_checks import IdentityError
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.expansion import Expansion
from skd.study.expansion_files import (
    expansion_sources_digest,
    load_expansion,
    read_expansion_file,
    write_expansion,
)
from skd.training.runs import complete_run
from tests.builders import tiny
from tests.builders.records import card_of, make_failure, make_record

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def study() -> Expansion:
    return tiny.study()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("SKD_TEACHERS", raising=False)
    return Store(tmp_path)


@pytest.fixture
def entry(study: Expansion, store: Store) -> StoreEntry:
    cell = study.cell("resnet8", "student")
    run = store.run(cell.runs[0])
    record = make_record(cell.run(0), run.id)
    environment = {"cpu": "a cpu", "gpu": None}
    run.write(record.model_copy(update={"environment": environment}))
    return run


def edit(path: Path, change: Edit) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# The same check for all readers.

EDITS: dict[str, tuple[Edit, str]] = {
    "another id": (lambda d: d.update(id="f" * 16), "identity is ffffffffffffffff"),
    "another spec": (lambda d: d["spec"].update(seed=5), "the identity of its spec is"),
    "an epoch less": (lambda d: d["epochs"].pop(), "epochs are not 1 to 3"),
    "epochs out of order": (lambda d: d["epochs"].reverse(), "epochs are not 1 to 3"),
    "last": (lambda d: d["last"].update(top1=99.0), "last differs from its last epoch, 3"),
    "best": (lambda d: d["best"].update(epoch=2), "best differs from its best epoch, 1"),
    "accuracy": (
        lambda d: d["epochs"][1].update(train_top1=101),
        "train_top1 101 is not a percent",
    ),
    "loss": (lambda d: d["epochs"][1].update(test_loss=1e300), "test_loss 1e+300 is larger"),
    "time": (lambda d: d["cost"].update(train_seconds=-1), "cost.train_seconds -1 is not possible"),
    "memory": (lambda d: d["cost"].update(peak_memory_bytes=10**30), "cost.peak_memory_bytes 1000"),
    "sessions": (lambda d: d["execution"].update(sessions=[]), "execution.sessions lists another"),
    "torch": (lambda d: d["environment"].update(torch=[2]), "environment.torch is not text"),
    "clean": (lambda d: d["environment"].update(git_clean="yes"), "git_clean is neither"),
    "device": (lambda d: d["execution"].clear(), "execution.device is not text"),
    "file": (lambda d: d["files"].update({"../x": "0" * 64}), "names a file '../x'"),
    "sha256": (lambda d: d["files"].update({"a.safetensors": "0"}), "is not a SHA-256"),
    "date": (lambda d: d.update(finished_at="yesterday"), "finished_at 'yesterday' is not a date"),
    "no time zone": (lambda d: d.update(finished_at="2026-01-01"), "not a date with a time zone"),
    "NaN": (lambda d: d["last"].update(top1=float("nan")), "NaN is not a JSON number"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_unreadable_to_every_reader(
    study: Expansion, store: Store, entry: StoreEntry, name: str
) -> None:
    assert entry.is_finished()
    assert len(load_timings(store).rows) == 1
    change, reason = EDITS[name]
    edit(entry.record_path, change)
    with pytest.raises(StoreError, match="Move it away, then: skd train") as caught:
        complete_run(study.cell("resnet8", "student").run(0), entry, tiny.options(), "a run")
    assert reason in str(caught.value)
    assert not entry.is_finished()
    status = cell_result(study, study.cell("resnet8", "student"), store).runs[0]
    assert (status.outcome, status.reason) == ("unreadable", str(caught.value))
    reading = read_run_state(store, entry, 0)
    assert (reading.outcome, reading.record) == ("unreadable", None)
    assert reason in reading.reason
    assert reason in read_record(entry)[1]
    with pytest.raises(RefusedError) as refused:
        check_entry("run", entry)
    assert reason in str(refused.value)
    with pytest.raises(UnusableError) as unusable:
        stored_run(entry)
    assert reason in str(unusable.value)
    assert load_timings(store).rows == {}  # of skd plan


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(id="f" * 16), "identity is ffff"),
        (lambda d: d.update(test_top1=99.0), "test_top1 differs from the record"),
        (lambda d: d.update(network="vgg8"), "network differs from the record"),
        (lambda d: d.update(sha256="1" * 64), "sha256 differs from the record"),
        (lambda d: d.update(test_top5=-1), "test_top5 -1 is not a percentage"),
        (lambda d: d.update(parameters=10**30), "is not a number of parameters"),
    ],
)
def test_an_edited_card_is_unreadable(
    study: Expansion, store: Store, change: Edit, reason: str
) -> None:
    node = study.teachers[0]
    teacher = store.teacher(node.id)
    record = make_record(node.spec.run, node.id)
    record = record.model_copy(update={"files": {"weights.safetensors": "0" * 64}})
    teacher.write(record)
    teacher.write(card_of(record))
    assert teacher_outcome(store, node.id)[0].outcome == "done"
    edit(teacher.card_path, change)
    outcome = teacher_outcome(store, node.id)[0]
    assert outcome.outcome == "unreadable"
    assert reason in outcome.reason
    assert not teacher.has_card()


# Folders and invalid JSON in place of files.


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_its_own_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def holding(content: str | bytes) -> Callable[[Path], Any]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda path: path.write_bytes(data)


GARBAGE: dict[str, Callable[[Path], Any]] = {
    "a folder": as_folder,
    "a link to itself": as_its_own_link,
    "a pipe": as_pipe,
    "deep lists": holding("[" * 10_000 + "]" * 10_000),
    "deep objects": holding('{"a":' * 200 + "1" + "}" * 200),
    "not UTF-8": holding(b"\xff\xfe{}"),
    "Infinity": holding('{"id": Infinity}'),
    "an overflow": holding('{"id": 1e999}'),
    "a huge integer": holding('{"id": ' + "1" * 5000 + "}"),
    "half a character": holding(r'{"id": "\ud800"}'),
    "empty": holding(""),
    "null": holding("null"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_one_unreadable_run_in_one_line(
    study: Expansion, store: Store, entry: StoreEntry, name: str
) -> None:
    entry.write(make_failure(entry.id))
    for path in (entry.record_path, entry.failure_path, entry.card_path):
        path.touch()
        GARBAGE[name](path)
    outcomes = cell_result(study, study.cell("resnet8", "student"), store).runs
    assert [run.outcome for run in outcomes] == ["unreadable", "missing"]
    assert "\n" not in outcomes[0].reason
    assert len(outcomes[0].reason) < 1000
    for read in (entry.record, entry.failure, entry.card):
        with pytest.raises(StoreError):
            read()
    assert read_run_state(store, entry, 0).outcome == "unreadable"


def test_a_file_that_nests_a_little_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" * 50 + "1.5" + "]" * 50)
    assert json.dumps(read_json(path)) == path.read_text()


def test_a_folder_in_place_of_an_output_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "analysis.json").mkdir()
    with pytest.raises(UnwritableError, match=r"analysis\.json cannot be written: Is a directory"):
        write_json(tmp_path / "analysis.json", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "analysis.json"]


# Expansions.


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["cells"][0]["runs"].update({"0": data["cells"][0]["runs"]["1"]}),
        lambda data: data["cells"][0]["spec"]["recipe"].update(epochs=1),
        lambda data: data.update(title="Mine"),
    ],
)
def test_an_edited_expansion_is_made_again_with_a_message(
    study: Expansion,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Edit,
) -> None:
    sheet = tmp_path / "tiny.yaml"
    sheet.write_text(yaml.safe_dump(tiny.SHEET))
    fresh = study.model_copy(update={"sources": expansion_sources_digest(sheet)})
    path = write_expansion(fresh, tmp_path)

    def expand(*_: Any, **__: Any) -> subprocess.CompletedProcess:
        write_expansion(fresh, tmp_path)
        return subprocess.CompletedProcess([], 0, stderr="")

    monkeypatch.setattr("skd.study.expansion_files.subprocess.run", expand)
    assert load_expansion(str(sheet), tmp_path) == fresh
    assert capsys.readouterr().err == ""
    edit(path, change)
    assert load_expansion(str(sheet), tmp_path) == fresh
    errors = capsys.readouterr().err
    assert errors.startswith(f"skd: {path} was edited by hand")
    assert errors.count("\n") == 1


def test_an_older_expansion_has_no_digest_and_its_runs_are_checked(
    study: Expansion, tmp_path: Path
) -> None:
    path = write_expansion(study, tmp_path)
    edit(path, lambda data: data.pop("content"))
    assert read_expansion_file(path) == study
    edit(path, lambda data: data["cells"][0]["spec"].update(network="vgg8"))
    with pytest.raises(ValueError, match="another release wrote it"):
        read_expansion_file(path)


def test_a_spec_is_not_trained_under_the_identity_of_another(
    study: Expansion, store: Store
) -> None:
    cell = study.cell("resnet8", "student")
    entry = store.run(cell.runs[1])
    with pytest.raises(IdentityError, match=f"not {entry.id}: .*skd expand STUDY"):
        complete_run(cell.run(0), entry, tiny.options(), "a run")
    assert not entry.folder.exists()
