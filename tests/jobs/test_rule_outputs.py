"""Snakemake's files against the store: missing or outdated outputs are made again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.common.files import write_json
from skd.jobs.rule_outputs import (
    batch_content,
    batch_file,
    outdated_files,
    report_code_changed,
    teacher_file,
    views_file,
)
from skd.planning.batches import JobShape, make_batches
from skd.planning.views_choice import ViewsConfig, ViewsPlan, plan_views
from skd.store.stale import FinishedRun
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from tests.builders.planned_studies import leave_views_card, study
from tests.builders.records import make_card


def reading_logits(expansion: Expansion) -> Expansion:
    """Return a study whose teacher's views can be stored, which its second cell looks up."""
    alone, taught = expansion.cells
    cells = (alone, taught.model_copy(update={"needs": ("teacher_logits",)}))
    images = expansion.images.model_copy(update={"views": 162})
    return expansion.model_copy(update={"cells": cells, "images": images})


STUDY = reading_logits(study(methods=("student", "kd"), seeds=2))
BATCHES = make_batches(STUDY, JobShape(), dict).batches
TEACHER = STUDY.teachers[0]
TAUGHT = STUDY.cells[1]
FIRST = TAUGHT.runs[0]
CARD = make_card(TEACHER.id, network="resnet56", dataset="cifar100", test_top1=70.0)


def plan_of(store: Store) -> ViewsPlan:
    return plan_views(STUDY, {TEACHER.name: store.teacher(TEACHER.id)}, ViewsConfig())[TEACHER.name]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a finished study after its driver has ended; its records are not read."""
    store, folder = Store(tmp_path), tmp_path / "made"
    for cell in STUDY.cells:
        for run in cell.runs.values():
            write_json(store.run(run).record_path, {"id": run})
    store.teacher(TEACHER.id).write(CARD)
    write_json(teacher_file(folder, TEACHER), CARD.model_dump(mode="json"))
    plan = plan_of(store)
    for file in plan.files:
        leave_views_card(file)
        file.path.write_bytes(b"")
    write_json(views_file(folder, plan), {"files": [{"output": output} for output in plan.outputs]})
    for batch, cell in zip(BATCHES, STUDY.cells, strict=True):
        write_json(batch_file(folder, batch), batch_content(STUDY, [cell], store))
    return store


def outdated(store: Store) -> set[str]:
    """Return the outdated files: their kind and their names."""
    folder = store.root / "made"
    files = outdated_files(folder, STUDY, BATCHES, store, lambda: [plan_of(store)])
    return {path.relative_to(folder).as_posix().rpartition("-")[0] for path in files}


def remove_teacher(store: Store) -> None:
    shutil.rmtree(store.teacher(TEACHER.id).folder)


def remove_run(store: Store) -> None:
    shutil.rmtree(store.run(FIRST).folder)


def retrain(store: Store) -> None:
    write_json(store.run(FIRST).record_path, {"id": FIRST, "last": "another"})


def remove_views(store: Store) -> None:
    shutil.rmtree(plan_of(store).files[0].folder)


def remove_run_and_teacher(store: Store) -> None:
    remove_run(store)
    remove_teacher(store)


def remove_run_and_views(store: Store) -> None:
    remove_run(store)
    remove_views(store)


def another_card(store: Store) -> None:
    store.teacher(TEACHER.id).write(CARD.model_copy(update={"test_top1": 71.0}))


def damage_cells_file(store: Store) -> None:
    batch_file(store.root / "made", BATCHES[1]).write_text("{")


CELLS, TEACHERS = f"cells/{TAUGHT.key}", f"teachers/{TEACHER.name}"
VIEWS = f"teacher-views/{TEACHER.name}"


@pytest.mark.parametrize(
    ("happens", "again"),
    [
        (lambda store: None, set()),
        (remove_run, {CELLS}),
        (retrain, {CELLS}),
        (damage_cells_file, {CELLS}),
        (remove_teacher, {TEACHERS}),
        (another_card, {TEACHERS}),
        (remove_views, set()),  # no run remains that looks them up
        (remove_run_and_views, {CELLS, VIEWS}),
        (remove_run_and_teacher, {CELLS, TEACHERS, VIEWS}),
    ],
)
def test_missing_and_changed_entries_are_made_again_and_nothing_else(
    store: Store, happens: Callable[[Store], None], again: set[str]
) -> None:
    happens(store)
    assert outdated(store) == again


def test_the_views_of_a_cell_that_was_never_trained_are_made_again(store: Store) -> None:
    remove_views(store)
    batch_file(store.root / "made", BATCHES[1]).unlink()
    assert outdated(store) == {VIEWS}


def test_views_that_were_refused_are_not_requested_again(store: Store) -> None:
    remove_run_and_views(store)
    write_json(views_file(store.root / "made", plan_of(store)), {"files": []})
    assert outdated(store) == {CELLS}


def test_a_file_of_an_earlier_version_is_trusted(store: Store) -> None:
    path = batch_file(store.root / "made", BATCHES[1])
    content = json.loads(path.read_text())
    for run in content[0]["runs"]:
        del run["record_sha256"]
    write_json(path, content)
    assert outdated(store) == set()
    remove_run(store)
    assert outdated(store) == {CELLS}


@pytest.mark.parametrize(
    ("sources", "changed"),
    [
        ("id,code_state\na,today's\n", False),
        ("id,code_state\na,0123456789abcdef\n", True),
        ("id,code_state\na,unknown\n", True),
        (
            "id,code_state\na,\nb,unknown\n",
            False,
        ),  # not finished: the cell's file states it
        ("id\na\n", False),  # from an earlier version
        (None, False),
    ],
)
def test_a_report_that_says_other_code_than_todays_is_noticed(
    tmp_path: Path, sources: str | None, changed: bool
) -> None:
    if sources is not None:
        (tmp_path / "report" / "data").mkdir(parents=True)
        (tmp_path / "report" / "data" / "runs.csv").write_text(sources)
    run = FinishedRun("a run", StoreEntry(Path("a")), changed={})
    assert report_code_changed(tmp_path, [run]) is changed
