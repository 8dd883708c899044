"""The report's comparison of a plan with the time of finished runs."""

from pathlib import Path

import pytest

from report.frames.plan_comparison import compare_with_plan, read_plan_comparison, wall_seconds
from report.frames.study_frames import build_frames
from report.output.write import write_report
from skd.planning.stored_plan import PlannedTraining, StudyPlan, expansion_digest, plan_path
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.spec import DatasetSpec, TrainedTeacher
from tests.builders.reported_study import fill, make_record, make_study

STUDY = make_study(DatasetSpec(name="cifar100"))


def make_plan(expansion: Expansion, **changes) -> StudyPlan:
    planned = PlannedTraining(seconds=4.0, source="model")
    values = {
        "study": expansion.study,
        "expansion": expansion_digest(expansion),
        "made_at": "2025-01-01T00:00:00+00:00",
        "done": 0,
        "device": "NVIDIA A100",
        "device_model": "a100",
        "side_by_side": 1,
        "teachers": dict.fromkeys([node.name for node in expansion.teachers], planned),
        "cells": dict.fromkeys([cell.key for cell in expansion.cells], planned),
        "wall_seconds": {1: 60.0, 8: 10.0},
    }
    return StudyPlan(**{**values, **changes})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    fill(Store(tmp_path), STUDY)
    return tmp_path


def write(plan: StudyPlan, results: Path) -> None:
    path = plan_path(results, plan.study)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan.model_dump_json())


def test_planned_and_measured_by_method_a_shared_run_once(results) -> None:
    comparison = compare_with_plan(
        make_plan(STUDY), STUDY, build_frames(STUDY, Store(results)), Store(results)
    )
    rows = [(row.name, row.finished, row.planned, row.measured) for row in comparison.rows]
    assert rows == [
        ("student", 6, 24.0, 36.0),
        ("kd", 7, 28.0, 42.0),
        ("dkd", 3, 12.0, 18.0),
        ("skd", 4, 16.0, 24.0),
        ("skd+kd", 3, 12.0, 18.0),
        ("T-8", 3, 12.0, 18.0),
        ("in all", 26, 104.0, 156.0),
    ]
    assert {row.ratio for row in comparison.rows} == {1.5}
    # All finished at the same time, and each took six seconds.
    assert (comparison.wall_seconds, comparison.mean_concurrency) == (6.0, 26.0)


def test_teachers_that_were_trained_count(results) -> None:
    store, record = Store(results), make_record(STUDY.cells[0], 0, 60.0)
    node = STUDY.teacher("resnet110").model_copy(
        update={"id": record.id, "spec": TrainedTeacher(run=record.spec)}
    )
    others = [other for other in STUDY.teachers if other.name != node.name]
    study = STUDY.model_copy(update={"teachers": (node, *others)})
    store.teacher(node.id).write(record)
    comparison = compare_with_plan(make_plan(study), study, build_frames(study, store), store)
    assert (comparison.rows[0].name, comparison.rows[0].measured) == ("teachers", 6.0)


def test_the_wall_time_is_shown_if_the_records_have_it() -> None:
    first = make_record(STUDY.cells[0], 0, 60.0)
    late = first.model_copy(update={"finished_at": "2025-01-01T01:00:00Z"})
    assert wall_seconds([first, late]) == 3606.0
    cut = first.cost.model_copy(update={"sessions": 2})
    assert wall_seconds([first.model_copy(update={"cost": cut}), late]) == 3600.0
    assert wall_seconds([first.model_copy(update={"finished_at": "yesterday"})]) is None
    assert wall_seconds([]) is None
    naive = first.model_copy(update={"finished_at": "2025-01-01T01:00:00"})
    assert wall_seconds([first, naive]) is None


def test_the_section_is_there_with_a_plan_and_not_without(results) -> None:
    page = write_report(STUDY, results)
    assert "Plan and reality" not in page.read_text()
    write(make_plan(STUDY), results)
    page = write_report(STUDY, results)
    text, markdown = page.read_text(), (page.parent / "results.md").read_text()
    assert '<div class="table" id="plan">' in text
    assert "Planned 2025-01-01T00:00:00+00:00 for NVIDIA A100, modelled as a100" in text
    assert "60 s on 1, 10 s on 8" in text
    assert "share a device" not in text
    assert "| in all | 26 | 104 s | 2.6 min | 1.50 |" in markdown
    write(make_plan(STUDY, side_by_side=4), results)
    assert "share a device, 4 at a time" in write_report(STUDY, results).read_text()


def test_a_plan_that_cannot_be_used_is_reported(results) -> None:
    write(make_plan(STUDY).model_copy(update={"expansion": "other"}), results)
    assert "was made for other runs" in write_report(STUDY, results).read_text()
    plan_path(results, STUDY.study).write_text("{")
    comparison, problem = read_plan_comparison(STUDY, build_frames(STUDY, Store(results)), results)
    assert comparison is None
    assert "cannot be read" in problem


def test_nothing_finished_yet(tmp_path) -> None:
    write(make_plan(STUDY), tmp_path)
    text = write_report(STUDY, tmp_path).read_text()
    assert '<div class="table" id="plan">' in text
    assert "From the first start" not in text
