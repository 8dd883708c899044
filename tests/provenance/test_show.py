"""`skd show`: everything about one run or teacher, in whatever state it is."""

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
from skd.store.records import Collapse, Failure, ProgressNote, TeacherCard
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion, expansion_path, write_expansion
from skd.study.spec import DatasetSpec, ImportedTeacher
from tests.builders import tiny
from tests.store.test_store import card_of, leave_dead_lease, make_card, make_failure, make_record

Skd = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("store")
ENVIRONMENT = {
    "skd": "0.1.0",
    "git_commit": "c0ffee",
    "git_clean": True,
    "torch": "2.15.0",
    "gpu": "NVIDIA [H100]",
    "host": "node7",
    "slurm_job": "4711",
}
EXECUTION = {"device": "cuda", "threads": 2, "sessions": ["torch 2.14, A100", "torch 2.15, H100"]}
WEIGHTS = b"weights"


@pytest.fixture(scope="module")
def study() -> Expansion:
    return tiny.study()


@pytest.fixture
def store(tmp_path: Path, study: Expansion, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A results folder in which only the study is expanded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKD_TEACHERS", raising=False)
    write_expansion(study, Path("results"))
    return Store(Path("results"))


def said(skd: Skd, *arguments: str) -> dict[str, str]:
    """Return the rows of what is shown by their name; the sections' lines by the section's."""
    status, out, err = skd("show", *arguments)
    assert (status, err) == (0, "")
    found: dict[str, str] = {}
    name = section = ""
    for line in out.splitlines():
        if line and not line.startswith(" "):
            name = section = line.strip()
        elif line.strip():
            head, _, rest = line.strip().partition("  ")
            if line.startswith("  ") and line[2] != " " and rest:
                name, line = f"{section}/{head}", rest
            found[name] = f"{found.get(name, '')}\n{line.strip()}".strip()
    found["title"] = out.splitlines()[0]
    return found


def data(skd: Skd, *arguments: str) -> dict[str, Any]:
    status, out, _ = skd("show", *arguments, "--json")
    assert status == 0
    (entry,) = json.loads(out)["entries"]
    return entry


def fail(skd: Skd, *arguments: str) -> str:
    status, out, err = skd("show", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("skd: ")
    return err


@pytest.fixture
def done(study: Expansion, store: Store) -> StoreEntry:
    """A finished run of `skd`, with its teacher's card, its weights and no logits."""
    cell, node = study.cell(tiny.PAIR, "skd"), study.teachers[0]
    entry = store.run(cell.runs[1])
    card = make_card(node.id)
    store.teacher(node.id).write(card)
    record = make_record(cell.run(1), entry.id)
    record = record.model_copy(
        update={
            "cost": record.cost.model_copy(update={"sessions": 2}),
            "environment": ENVIRONMENT,
            "execution": EXECUTION,
            "teacher": card,
            "collapse": Collapse(collapsed=True, reason="it lost the labels", first_epoch=1),
            "files": {
                "weights.safetensors": hashlib.sha256(WEIGHTS).hexdigest(),
                "test_logits.safetensors": "1" * 64,
            },
        }
    )
    entry.write(record)
    entry.weights_path.write_bytes(WEIGHTS)
    return entry


# A finished run.


def test_a_finished_run_is_shown_with_all_it_rests_on(
    skd: Skd, study: Expansion, done: StoreEntry
) -> None:
    rows = said(skd, done.id)
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
    assert rows["Cost/training"] == "0:00:01, 1.00 s an epoch, 1 images/s"
    assert rows["Environment/code"] == "skd 0.1.0, commit c0ffee, clean"
    assert rows["Environment/machine"] == "gpu NVIDIA [H100], host node7"
    assert rows["Environment/SLURM job"] == "4711"
    assert rows["Environment/executed"] == "device cuda, threads 2"
    assert rows["Environment/session 2"] == "torch 2.15, H100"
    assert rows["Files/weights.safetensors"].split()[0] == "there"
    assert rows["Files/test_logits.safetensors"].split() == ["not", "there", "1" * 64]
    assert not any(name.startswith(("Logs", "Last attempt")) for name in rows)


def test_an_unclean_tree_and_other_weights_of_the_teacher_are_said_aloud(
    skd: Skd, study: Expansion, store: Store, done: StoreEntry
) -> None:
    record = done.record()
    done.write(record.model_copy(update={"environment": {**ENVIRONMENT, "git_clean": False}}))
    teacher = store.teacher(study.teachers[0].id)
    teacher.write(teacher.card().model_copy(update={"sha256": "2" * 64}))
    rows = said(skd, done.id)
    assert rows["Environment/code"].endswith("commit c0ffee, WITH UNCOMMITTED CHANGES")
    assert f"NOW HERE WITH OTHER WEIGHTS: sha256 {'2' * 64}" in rows["What it is/teacher"]


def test_the_sources_that_made_it_are_compared_with_this_code(skd: Skd, done: StoreEntry) -> None:
    def recorded(**changes: object) -> tuple[str, dict[str, Any]]:
        record = done.record()
        done.write(record.model_copy(update={"environment": {**ENVIRONMENT, **changes}}))
        rows, found = said(skd, done.id), data(skd, done.id)
        assert rows["Environment/code"].startswith("skd 0.1.0, commit ")
        return rows["Environment/sources"], found["sources"]

    here = sources_id()
    assert recorded() == ("not recorded", {"recorded": None, "here": here, "same": None})
    assert recorded(sources=here, git_commit=None, git_clean=None) == (
        f"{here}, as here",
        {"recorded": here, "here": here, "same": True},
    )
    assert recorded(sources="0" * 16) == (
        f"{'0' * 16}, NOT AS HERE: this code is {here}",
        {"recorded": "0" * 16, "here": here, "same": False},
    )


def test_files_are_hashed_only_where_that_is_asked_for(skd: Skd, done: StoreEntry) -> None:
    assert said(skd, done.id)["Files/weights.safetensors"].startswith("there")
    assert [file["matches"] for file in data(skd, done.id)["files"]] == [None, None]
    assert said(skd, done.id, "--verify")["Files/weights.safetensors"].startswith("matches")
    done.weights_path.write_bytes(b"tampered")
    assert said(skd, done.id)["Files/weights.safetensors"].startswith("there")
    assert said(skd, done.id, "--verify")["Files/weights.safetensors"].startswith("DIFFERS")
    assert [f["matches"] for f in data(skd, done.id, "--verify")["files"]] == [False, None]


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
    assert said(skd, done.id)["Logs"] == str(log)
    log.with_suffix(".history.log").write_text("")
    assert data(skd, done.id)["logs"] == [str(log), str(log.with_suffix(".history.log"))]


def test_the_document_has_what_is_shown(skd: Skd, study: Expansion, done: StoreEntry) -> None:
    found, record = data(skd, done.id), done.record()
    assert (found["id"], found["kind"], found["state"]) == (done.id, "run", "done")
    assert found["folder"] == f"results/runs/{done.id}"
    assert found["studies"] == [{"study": "tiny", "pair": tiny.PAIR, "method": "skd", "seed": 1}]
    for name in ("method", "recipe", "dataset", "network", "seed"):
        assert found[name] == canonical(getattr(record.spec, name))
    for name in ("last", "best", "collapse", "cost"):
        assert found[name] == getattr(record, name).model_dump()
    assert found["environment"] == ENVIRONMENT
    assert found["execution"] == EXECUTION
    assert found["finished_at"] == record.finished_at
    assert found["teacher"]["id"] == study.teachers[0].id
    assert found["teacher"]["as_it_taught"]["sha256"] == "0" * 64
    assert found["files"][0] == {
        "path": f"results/runs/{done.id}/weights.safetensors",
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "there": True,
        "matches": None,
    }
    assert found["failure"] is found["holder"] is found["progress"] is None


# Runs that are not finished.


def test_a_failed_run_is_shown_with_its_reason_and_the_end_of_its_traceback(
    skd: Skd, study: Expansion, store: Store
) -> None:
    entry = store.run(study.cell(tiny.PAIR, "kd").runs[0])
    note = make_failure(entry.id, "it [broke]").model_dump()
    details = "\n".join(f"line {number} of the [traceback]" for number in range(40))
    changes = {"details": details, "repeats": True, "environment": ENVIRONMENT}
    entry.write(Failure(**{**note, **changes}))
    rows = said(skd, entry.id)
    assert rows["title"] == f"run {entry.id}: failed"
    assert rows["Outcome/state"].splitlines() == [
        "failed: it [broke]",
        "another attempt would fail in the same way",
    ]
    lines = rows["Last attempt to fail"].splitlines()
    assert lines[0] == "TrainingError in epoch 4, 2026-01-01T00:00:00+00:00"
    assert lines[-1] == "line 39 of the [traceback]"
    assert lines[1] == "… 28 lines more: --json has them"
    assert len(lines) == 14
    assert rows["Environment/SLURM job"] == "4711"
    assert data(skd, entry.id)["failure"]["details"] == details
    assert data(skd, entry.id)["reason"] == "it [broke]"


def test_a_run_under_way_is_shown_with_who_runs_it_and_how_far_it_is(
    skd: Skd, study: Expansion, store: Store
) -> None:
    cell = study.cell("resnet8", "student")
    entry = store.run(cell.runs[0])
    with hold_lease(entry.folder, wait=False):
        assert said(skd, entry.id)["Outcome/progress"] == "starting"
        entry.write_spec(cell.run(0))
        (entry.folder / "execution.json").write_text('{"device": "cpu", "threads": 3}')
        told = ProgressNote(
            epoch=1, epochs=3, images_per_second=50.0, seconds_left=61.0, at=time.time()
        )
        entry.write(told)
        rows, found = said(skd, entry.id), data(skd, entry.id)
    assert rows["Outcome/state"].startswith(f"running: process {os.getpid()} on ")
    assert rows["Outcome/progress"] == "epoch 2/3, 50 images/s, 0:01:01 left"
    assert rows["Environment/executed"] == "device cpu, threads 3"
    assert found["holder"]["pid"] == os.getpid()
    assert found["progress"]["seconds_left"] == 61.0


def test_what_was_interrupted_or_never_begun_is_known_from_the_study(
    skd: Skd, study: Expansion, store: Store
) -> None:
    cell = study.cell(tiny.PAIR, "kd")
    assert said(skd, cell.runs[1])["Outcome/state"] == "missing"
    rows = said(skd, cell.runs[0])
    assert rows["What it is/seed"] == "0"
    assert rows["What it is/teacher"].endswith("not in this store yet")
    assert "Method/kd" in rows
    assert not store.run(cell.runs[0]).folder.exists()
    entry = store.run(cell.runs[0])
    entry.folder.mkdir(parents=True)
    (entry.folder / "checkpoint.pt").write_bytes(b"")
    leave_dead_lease(entry.folder)
    assert said(skd, entry.id)["Outcome/state"] == "interrupted"
    expansion_path(Path("results"), "tiny").unlink()
    entry.write_spec(cell.run(0))
    rows = said(skd, entry.id)
    assert rows["What it is/seed"] == "0"
    assert rows["What it is/in studies"] == "none that is expanded here"


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
def test_a_record_that_cannot_be_read_is_shown_as_such(
    skd: Skd, done: StoreEntry, damage: Callable[[str], str], message: str
) -> None:
    done.record_path.write_text(damage(done.record_path.read_text()))
    rows = said(skd, done.id)
    assert rows["title"] == f"run {done.id}: unreadable"
    assert message in rows["Outcome/state"]
    assert "move that file away" in rows["Outcome/state"]
    assert rows["What it is/in studies"] == f"tiny: {tiny.PAIR}/skd seed 1"
    assert rows["Files/weights.safetensors"] == "there  no sha256 stated"
    assert message in data(skd, done.id)["problems"][0]


# Teachers.


def test_a_trained_teacher_is_shown_with_its_card_and_its_record(
    skd: Skd, study: Expansion, store: Store
) -> None:
    node = study.teachers[0]
    entry = store.teacher(node.id)
    record = make_record(node.spec.run, node.id)
    record = record.model_copy(update={"files": {"weights.safetensors": "0" * 64}})
    entry.write(record)
    assert said(skd, node.id)["Outcome/state"].startswith(
        "interrupted: trained, but without its card"
    )
    entry.write(card_of(record))
    log = Path(f"results/tiny/logs/teachers/teacher-{node.id}.log")
    log.parent.mkdir(parents=True)
    log.write_text("")
    rows = said(skd, "tiny/teacher")
    assert rows["title"] == f"teacher {node.id}: done"
    assert rows["What it is/origin"] == "trained here, seed 0"
    assert rows["What it is/in studies"] == "tiny: teacher teacher"
    assert rows["Outcome/last"].startswith("top-1 70.00 %")
    assert rows["Files/weights.safetensors"].split() == ["not", "there", "0" * 64]
    assert rows["Logs"] == str(log)
    assert data(skd, node.id)["studies"] == [{"study": "tiny", "teacher": "teacher"}]


def test_an_imported_teacher_is_shown_from_its_card(skd: Skd, store: Store) -> None:
    spec = ImportedTeacher(network="wrn_16_1", dataset=DatasetSpec(name="digits"), sha256="a" * 64)
    card = make_card(spec.identity).model_dump()
    imported = {"kind": "imported", "network": "wrn_16_1", "origin": "imported from x.pth"}
    store.teacher(spec.identity).write(
        TeacherCard(**{**card, **imported, "source_sha256": "a" * 64})
    )
    rows = said(skd, spec.identity)
    assert rows["What it is/network"] == "wrn_16_1"
    assert rows["What it is/origin"] == f"imported from x.pth\nfile's sha256 {'a' * 64}"
    assert rows["Outcome/measured"] == "top-1 97.25 %, top-5 99.00 %"
    assert data(skd, spec.identity)["network"] == "wrn_16_1"


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
    assert said(skd, "bbbb")["What it is/folder"] == f"shared/{'b' * 16}"


# What may be typed.


def test_a_beginning_is_enough_where_it_is_the_only_one(skd: Skd, store: Store) -> None:
    for name in ("aaaa0000bbbb0000", "aaaa0001bbbb0000", "aaaa0001"):
        store.run(name).folder.mkdir(parents=True)
    assert said(skd, "AAAA0000")["title"].startswith("run aaaa0000bbbb0000")
    assert said(skd, "aaaa0001")["title"].startswith("run aaaa0001:")
    message = fail(skd, "aaaa")
    assert "begins 3 identities" in message
    assert "aaaa0000bbbb0000, aaaa0001, aaaa0001bbbb0000" in message
    assert "too short" in fail(skd, "aaa")


def test_candidates_have_their_names_and_are_not_too_many(
    skd: Skd, study: Expansion, store: Store
) -> None:
    identity = study.cell(tiny.PAIR, "kd").runs[0]
    store.run(identity[:4] + "zzzz").folder.mkdir(parents=True)
    assert f"{identity} (tiny: {tiny.PAIR}/kd seed 0)" in fail(skd, identity[:4])
    for number in range(20):
        store.run(f"qqqq{number:04}").folder.mkdir(parents=True)
    assert fail(skd, "qqqq").rstrip().endswith(", qqqq0007, and 12 more")


def test_an_unknown_identity_says_how_to_list_them(skd: Skd) -> None:
    message = fail(skd, "ffffffff")
    assert "no run or teacher 'ffffffff' in results" in message
    assert "`ls results/runs results/teachers`" in message
    assert "skd status STUDY" in message
    assert "there is no results folder" in fail(skd, "ffffffff", "--results", "gone")


def test_an_address_is_read_in_the_expansion(skd: Skd, study: Expansion) -> None:
    for method in ("kd", "skd+kd"):
        identity = study.cell(tiny.PAIR, method).runs[1]
        assert data(skd, f"tiny/{tiny.PAIR}/{method}/1")["id"] == identity
    alone = study.cell("resnet8", "student").runs[0]
    assert data(skd, "tiny/resnet8/student/0")["id"] == alone
    assert data(skd, f"tiny/{tiny.PAIR}/student/0")["id"] == alone  # the pairs share it


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tniy/teacher", "unknown study 'tniy' (did you mean 'tiny'?); allowed: tiny"),
        ("tiny/techer", "has no teacher 'techer' (did you mean 'teacher'?)"),
        (f"tiny/{tiny.PAIR}/ks/0", f"(did you mean '{tiny.PAIR}/kd'?)"),
        ("tiny/other--resnet8/student/0", "has no cell 'other--resnet8/student'"),
        (f"tiny/{tiny.PAIR}/kd/9", f"no seed '9' of tiny/{tiny.PAIR}/kd; allowed: 0, 1"),
        (f"tiny/{tiny.PAIR}/kd", "STUDY/PAIR/METHOD/SEED"),
    ],
)
def test_an_address_that_leads_nowhere_names_what_is_allowed(
    skd: Skd, address: str, words: str
) -> None:
    assert words in fail(skd, address)


def test_a_study_of_another_release_is_not_searched_and_that_is_said(
    skd: Skd, done: StoreEntry
) -> None:
    path = expansion_path(Path("results"), "tiny")
    path.write_text(path.read_text().replace('"cells"', '"cellules"'))
    rows = said(skd, done.id)
    assert rows["What it is/in studies"].splitlines() == [
        "none that is expanded here",
        "not searched: tiny, its specs.json is damaged, edited or of another release; first: skd "
        "expand tiny",
    ]
    assert data(skd, done.id)["studies_not_searched"] == ["tiny"]
    assert "skd expand tiny" in fail(skd, "tiny/teacher")


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
