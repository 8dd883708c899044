"""`skd show`: everything about one run or teacher, in any state."""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skd.code.sources import sources_id
from skd.common.frozen import canonical
from skd.common.lease import hold_lease
from skd.planning.batches import JobShape, make_batches, save_batches
from skd.provenance.details import EntryDetails
from skd.provenance.entry_reading import display_path
from skd.provenance.show_text import render_details
from skd.store.records import ProgressNote
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_path
from skd.study.spec import DatasetSpec, ImportedTeacher
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.records import card_of, leave_dead_lease, make_card, make_failure, make_record
from tests.builders.show_output import ENVIRONMENT, EXECUTION, WEIGHTS, printed_json, printed_rows

pytestmark = pytest.mark.usefixtures("store")


# A finished run.


def test_a_finished_run_is_shown_with_everything_it_depends_on(
    skd: Skd, study: Expansion, done: StoreEntry
) -> None:
    rows = printed_rows(skd, done.id)
    spec = study.cell(tiny.PAIR, "skd").spec
    assert rows["title"] == f"run {done.id}: done"
    assert rows["What it is/network"] == "resnet8"
    assert rows["What it is/data set"] == "digits, test split, 80 training images"
    assert rows["What it is/seed"] == "1"
    assert rows["What it is/teacher"].splitlines() == [
        f"resnet8, results/teachers/{study.teachers[0].id}",
        "97.25 % top-1; trained here, seed 0",
        f"weights' sha256 {'0' * 64}",
    ]
    assert rows["What it is/in studies"] == f"tiny: {tiny.PAIR}/skd seed 1"
    for term in spec.method.terms:
        assert f"weight {term.settings['weight']}" in rows[f"Method/{term.term}"]
    simplifier = f"Method/simplifier (version {spec.method.simplifier.version})"
    assert "combination residual" in rows[simplifier]
    assert "epochs 3, batch_size 64, learning_rate 0.05, milestones [2]" in rows["Recipe"]
    assert rows["Outcome/state"] == "done, 2026-01-01T00:00:00+00:00"
    assert rows["Outcome/last"] == "top-1 70.00 %, top-5 90.00 % (epoch 3)"
    assert rows["Outcome/best"] == "top-1 71.00 %, top-5 91.00 % (epoch 1)"
    assert rows["Outcome/collapse"] == "COLLAPSED from epoch 1: it lost the labels"
    assert rows["Cost/training"] == "0:00:01, 1.00 s per epoch, 1 images/s"
    assert rows["Environment/code"] == "skd 0.1.0, commit c0ffee, clean"
    assert rows["Environment/machine"] == "gpu NVIDIA [H100], host node7"
    assert rows["Environment/SLURM job"] == "4711"
    assert rows["Environment/executed"] == "device cuda, threads 2"
    assert rows["Environment/session 2"] == "torch 2.15, H100"
    assert rows["Files/weights.safetensors"].split()[0] == "there"
    assert rows["Files/test_logits.safetensors"].split() == ["not", "there", "1" * 64]
    assert not any(name.startswith(("Logs", "Last attempt")) for name in rows)


def test_an_unclean_tree_and_other_weights_of_the_teacher_are_reported(
    skd: Skd, study: Expansion, store: Store, done: StoreEntry
) -> None:
    record = done.record()
    done.write(record.model_copy(update={"environment": {**ENVIRONMENT, "git_clean": False}}))
    teacher = store.teacher(study.teachers[0].id)
    teacher.write(teacher.card().model_copy(update={"sha256": "2" * 64}))
    rows = printed_rows(skd, done.id)
    assert rows["Environment/code"].endswith("commit c0ffee, WITH UNCOMMITTED CHANGES")
    assert f"NOW IN THIS STORE WITH OTHER WEIGHTS: sha256 {'2' * 64}" in rows["What it is/teacher"]


def test_the_sources_that_made_it_are_compared_with_this_code(skd: Skd, done: StoreEntry) -> None:
    def recorded(**changes: object) -> tuple[str, dict[str, Any]]:
        record = done.record()
        done.write(record.model_copy(update={"environment": {**ENVIRONMENT, **changes}}))
        rows, entry = printed_rows(skd, done.id), printed_json(skd, done.id)
        assert rows["Environment/code"].startswith("skd 0.1.0, commit ")
        return rows["Environment/sources"], entry["sources"]

    current = sources_id()
    assert recorded() == ("not recorded", {"recorded": None, "here": current, "same": None})
    assert recorded(sources=current, git_commit=None, git_clean=None) == (
        f"{current}, same as this code",
        {"recorded": current, "here": current, "same": True},
    )
    assert recorded(sources="0" * 16) == (
        f"{'0' * 16}, DIFFERENT FROM THIS CODE: {current}",
        {"recorded": "0" * 16, "here": current, "same": False},
    )


def test_files_are_hashed_only_on_request(skd: Skd, done: StoreEntry) -> None:
    assert printed_rows(skd, done.id)["Files/weights.safetensors"].startswith("there")
    assert [file["matches"] for file in printed_json(skd, done.id)["files"]] == [None, None]
    assert printed_rows(skd, done.id, "--verify")["Files/weights.safetensors"].startswith("matches")
    done.weights_path.write_bytes(b"tampered")
    assert printed_rows(skd, done.id)["Files/weights.safetensors"].startswith("there")
    assert printed_rows(skd, done.id, "--verify")["Files/weights.safetensors"].startswith("DIFFERS")
    assert [f["matches"] for f in printed_json(skd, done.id, "--verify")["files"]] == [False, None]


def test_the_logs_of_its_job_are_those_of_its_batch(
    skd: Skd, study: Expansion, done: StoreEntry
) -> None:
    batches = make_batches(study, JobShape(cells_per_job=3), dict)
    save_batches(batches, Path("results"), "tiny")
    (batch,) = [batch for batch in batches.batches if "skd" in batch.methods]
    assert len(batch.methods) == 3
    log = Path("results/tiny/logs") / f"{batch.path}.log"
    log.parent.mkdir(parents=True)
    log.write_text("")
    (log.parent / "kd-00000000.log").write_text("")
    assert printed_rows(skd, done.id)["Logs"] == str(log)
    log.with_suffix(".history.log").write_text("")
    assert printed_json(skd, done.id)["logs"] == [str(log), str(log.with_suffix(".history.log"))]


def test_the_json_has_everything_that_the_text_has(
    skd: Skd, study: Expansion, done: StoreEntry
) -> None:
    entry, record = printed_json(skd, done.id), done.record()
    assert (entry["id"], entry["kind"], entry["state"]) == (done.id, "run", "done")
    assert entry["folder"] == f"results/runs/{done.id}"
    assert entry["studies"] == [{"study": "tiny", "pair": tiny.PAIR, "method": "skd", "seed": 1}]
    for name in ("method", "recipe", "dataset", "network", "seed"):
        assert entry[name] == canonical(getattr(record.spec, name))
    for name in ("last", "best", "collapse", "cost"):
        assert entry[name] == getattr(record, name).model_dump()
    assert entry["environment"] == ENVIRONMENT
    assert entry["execution"] == EXECUTION
    assert entry["finished_at"] == record.finished_at
    assert entry["teacher"]["id"] == study.teachers[0].id
    assert entry["teacher"]["as_it_taught"]["sha256"] == "0" * 64
    assert entry["files"][0] == {
        "path": f"results/runs/{done.id}/weights.safetensors",
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "there": True,
        "matches": None,
    }
    assert entry["failure"] is entry["holder"] is entry["progress"] is None


# Runs that are not finished.


def test_a_failed_run_is_shown_with_its_reason_and_the_end_of_its_traceback(
    skd: Skd, study: Expansion, store: Store
) -> None:
    entry = store.run(study.cell(tiny.PAIR, "kd").runs[0])
    details = "\n".join(f"line {number} of the [traceback]" for number in range(40))
    changes = {"details": details, "repeats": True, "environment": ENVIRONMENT}
    entry.write(make_failure(entry.id, "it [broke]", **changes))
    rows = printed_rows(skd, entry.id)
    assert rows["title"] == f"run {entry.id}: failed"
    assert rows["Outcome/state"].splitlines() == [
        "failed: it [broke]",
        "another attempt would fail in the same way",
    ]
    lines = rows["Last attempt to fail"].splitlines()
    assert lines[0] == "TrainingError in epoch 4, 2026-01-01T00:00:00+00:00"
    assert lines[-1] == "line 39 of the [traceback]"
    assert lines[1] == "… 28 more lines: --json has them"
    assert len(lines) == 14
    assert rows["Environment/SLURM job"] == "4711"
    assert printed_json(skd, entry.id)["failure"]["details"] == details
    assert printed_json(skd, entry.id)["reason"] == "it [broke]"


def test_a_run_under_way_is_shown_with_who_runs_it_and_how_far_it_is(
    skd: Skd, study: Expansion, store: Store
) -> None:
    cell = study.cell("resnet8", "student")
    entry = store.run(cell.runs[0])
    with hold_lease(entry.folder, wait=False):
        assert printed_rows(skd, entry.id)["Outcome/progress"] == "starting"
        entry.write_spec(cell.run(0))
        (entry.folder / "execution.json").write_text('{"device": "cpu", "threads": 3}')
        note = ProgressNote(
            epoch=1, epochs=3, images_per_second=50.0, seconds_left=61.0, at=time.time()
        )
        entry.write(note)
        rows, output = printed_rows(skd, entry.id), printed_json(skd, entry.id)
    assert rows["Outcome/state"].startswith(f"running: process {os.getpid()} on ")
    assert rows["Outcome/progress"] == "epoch 2/3, 50 images/s, 0:01:01 left"
    assert rows["Environment/executed"] == "device cpu, threads 3"
    assert output["holder"]["pid"] == os.getpid()
    assert output["progress"]["seconds_left"] == 61.0


def test_interrupted_and_missing_runs_are_known_from_the_study(
    skd: Skd, study: Expansion, store: Store
) -> None:
    cell = study.cell(tiny.PAIR, "kd")
    assert printed_rows(skd, cell.runs[1])["Outcome/state"] == "missing"
    rows = printed_rows(skd, cell.runs[0])
    assert rows["What it is/seed"] == "0"
    assert rows["What it is/teacher"].endswith("not in this store yet")
    assert "Method/kd" in rows
    assert not store.run(cell.runs[0]).folder.exists()
    entry = store.run(cell.runs[0])
    entry.folder.mkdir(parents=True)
    (entry.folder / "checkpoint.pt").write_bytes(b"")
    leave_dead_lease(entry.folder)
    assert printed_rows(skd, entry.id)["Outcome/state"] == "interrupted"
    expansion_path(Path("results"), "tiny").unlink()
    entry.write_spec(cell.run(0))
    rows = printed_rows(skd, entry.id)
    assert rows["What it is/seed"] == "0"
    assert rows["What it is/in studies"] == "none of the expanded ones"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:200], "record.json is damaged: "),
        (
            lambda text: text.replace('"schema_version": 1', '"schema_version": 7'),
            "record.json has schema version 7, and this code reads 1",
        ),
        (lambda text: text.replace('"num_classes"', '"classes"'), "unknown key 'classes'"),
        (lambda text: text.replace('"epochs": 3', '"epochs": "many"'), "recipe.epochs: "),
    ],
)
def test_a_record_that_cannot_be_read_is_shown_as_unreadable(
    skd: Skd, done: StoreEntry, damage: Callable[[str], str], message: str
) -> None:
    done.record_path.write_text(damage(done.record_path.read_text()))
    rows = printed_rows(skd, done.id)
    assert rows["title"] == f"run {done.id}: unreadable"
    assert message in rows["Outcome/state"]
    assert "move that file away" in rows["Outcome/state"]
    assert rows["What it is/in studies"] == f"tiny: {tiny.PAIR}/skd seed 1"
    assert rows["Files/weights.safetensors"] == "there  no sha256 recorded"
    assert message in printed_json(skd, done.id)["problems"][0]


# Teachers.


def test_a_trained_teacher_is_shown_with_its_card_and_its_record(
    skd: Skd, study: Expansion, store: Store
) -> None:
    node = study.teachers[0]
    entry = store.teacher(node.id)
    record = make_record(node.spec.run, node.id)
    record = record.model_copy(update={"files": {"weights.safetensors": "0" * 64}})
    entry.write(record)
    assert printed_rows(skd, node.id)["Outcome/state"].startswith(
        "interrupted: trained, but without its card"
    )
    entry.write(card_of(record))
    log = Path(f"results/tiny/logs/teachers/teacher-{node.id}.log")
    log.parent.mkdir(parents=True)
    log.write_text("")
    rows = printed_rows(skd, "tiny/teacher")
    assert rows["title"] == f"teacher {node.id}: done"
    assert rows["What it is/origin"] == "trained here, seed 0"
    assert rows["What it is/in studies"] == "tiny: teacher teacher"
    assert rows["Outcome/last"].startswith("top-1 70.00 %")
    assert rows["Files/weights.safetensors"].split() == ["not", "there", "0" * 64]
    assert rows["Logs"] == str(log)
    assert printed_json(skd, node.id)["studies"] == [{"study": "tiny", "teacher": "teacher"}]


def test_an_imported_teacher_is_shown_from_its_card(skd: Skd, store: Store) -> None:
    spec = ImportedTeacher(network="wrn_16_1", dataset=DatasetSpec(name="digits"), sha256="a" * 64)
    card = make_card(
        spec.identity,
        kind="imported",
        network="wrn_16_1",
        origin="imported from x.pth",
        source_sha256="a" * 64,
    )
    store.teacher(spec.identity).write(card)
    rows = printed_rows(skd, spec.identity)
    assert rows["What it is/network"] == "wrn_16_1"
    assert rows["What it is/origin"] == f"imported from x.pth\nfile's sha256 {'a' * 64}"
    assert rows["Outcome/measured"] == "top-1 97.25 %, top-5 99.00 %"
    assert printed_json(skd, spec.identity)["network"] == "wrn_16_1"


def test_what_is_both_a_run_and_a_teacher_is_shown_as_both(
    skd: Skd, study: Expansion, store: Store
) -> None:
    node = study.teachers[0]
    for entry in (store.teacher(node.id), store.run(node.id)):
        entry.write(make_record(node.spec.run, node.id))
    _, out, _ = skd("show", node.id)
    assert f"teacher {node.id}: interrupted" in out
    assert f"\n\nrun {node.id}: done" in out
    _, out, _ = skd("show", node.id, "--json")
    assert [entry["kind"] for entry in json.loads(out)["entries"]] == ["teacher", "run"]


def test_teachers_are_looked_for_where_they_are_shared(
    skd: Skd, study: Expansion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_TEACHERS", str(tmp_path / "shared"))
    StoreEntry(tmp_path / "shared" / ("b" * 16)).write(make_card("b" * 16))
    assert printed_rows(skd, "bbbb")["What it is/folder"] == f"shared/{'b' * 16}"


# The parts.


def test_paths_are_relative_within_the_working_directory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert display_path(Path("results/x")) == "results/x"
    assert display_path(tmp_path / "here" / "y") == "y"
    assert display_path(tmp_path / "there") == str(tmp_path / "there")


def test_a_section_without_anything_to_say_is_left_out() -> None:
    text = io.StringIO()
    facts = EntryDetails(StoreEntry(Path("results/runs/0000")), "run", "missing", "")
    Console(file=text, width=80).print(render_details(facts))
    sections = [line for line in text.getvalue().splitlines() if line and line[0] != " "]
    assert sections == ["run 0000: missing", "What it is", "Outcome"]
