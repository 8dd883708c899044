"""`skd merge` refuses damaged entries and stops at conflicts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skd.common.lease import hold_lease
from skd.store.record_differences import record_differences
from skd.store.records import Collapse, Record
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import write_expansion
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.records import make_card, make_record
from tests.builders.result_sets import (
    LOGITS,
    WEIGHTS,
    conflict,
    edit,
    put_run,
    put_teacher,
    sha256,
)

# Refused entries.


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
        f"its identity is {'0' * 16}": lambda d: d.update(id="0" * 16),
        "the identity of its spec is": lambda d: d["spec"].update(seed=12),
        "NaN is not a JSON number": lambda d: d["last"].update(top1=float("nan")),
        "epoch 1: test_top5 101 is not a percentage": lambda d: d["epochs"][0].update(
            test_top5=101
        ),
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
    refused("record.json is damaged: it is not a regular file")


def test_a_run_under_another_name_is_refused(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    entry = put_run(theirs, study.cell("resnet8", "student"))
    entry.folder.rename(entry.folder.with_name("f" * 16))
    status, _, err = skd("merge", "theirs")
    assert status == 1
    assert f"its identity is {entry.id}: the folder was renamed" in err
    assert not (ours.root / "runs").exists()


def test_a_teacher_that_does_not_agree_with_itself_is_refused(
    skd: Skd, study: Expansion, theirs: Store
) -> None:
    entry = put_teacher(theirs, study)
    card = entry.card()
    entry.write(card.model_copy(update={"test_top1": 99.0}))
    status, _, err = skd("merge", "theirs")
    assert (status, "its test_top1 differs from the record in the same folder" in err) == (1, True)
    entry.write(card.model_copy(update={"id": "0" * 16}))
    status, _, err = skd("merge", "theirs")
    assert (status, f"its identity is {'0' * 16}" in err) == (1, True)
    entry.write(card)
    entry.record_path.unlink()
    status, _, err = skd("merge", "theirs")
    assert (status, "its record is missing" in err) == (1, True)


def test_a_trained_teacher_without_its_card_is_unfinished(
    skd: Skd, study: Expansion, theirs: Store
) -> None:
    put_teacher(theirs, study).card_path.unlink()
    status, out, _ = skd("merge", "theirs")
    assert status == 0
    assert "teachers: 0 merged, 0 already present, 1 ignored (unfinished)" in out


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_other_numbers_are_a_conflict_that_leaves_everything_as_it_was(
    skd: Skd, study: Expansion, theirs: Store, ours: Store, arguments: tuple[str, ...]
) -> None:
    student, kd = study.cell("resnet8", "student"), study.cell(tiny.PAIR, "kd")
    put_run(theirs, student, seed=1)  # this entry is valid
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


def test_a_conflict_states_whether_the_same_code_made_both(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    cell = study.cell("resnet8", "student")
    mine, yours = put_run(ours, cell, top1=70.0), put_run(theirs, cell, top1=71.5)

    def made_by(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
        for entry, environment in ((mine, ours), (yours, theirs)):
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
    assert "merge again when they have ended" in err
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


def test_a_run_with_other_teacher_weights_than_those_here_is_a_conflict(
    skd: Skd, study: Expansion, theirs: Store, ours: Store
) -> None:
    mine = put_teacher(ours, study, 91.0, content=b"ours")
    entry = put_run(theirs, study.cell(tiny.PAIR, "kd"))
    other = mine.card().model_copy(update={"sha256": "1" * 64, "test_top1": 88.0})
    entry.write(entry.record().model_copy(update={"teacher": other}))
    out, _ = conflict(skd)
    assert f"with other weights of the teacher than those here ({mine.id})" in out
    assert "91.00 %" in out
    assert "88.00 %" in out
    entry.write(entry.record().model_copy(update={"teacher": mine.card()}))
    assert skd("merge", "theirs")[0] == 0
