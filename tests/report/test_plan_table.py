"""The report's comparison of a plan with the time of finished runs."""

from pathlib import Path

import pytest

from report.frames.plan_comparison import (
    PlanComparison,
    compare_with_plan,
    read_plan_comparison,
    wall_seconds,
)
from report.frames.study_frames import build_frames
from report.output.write import write_report
from report.tables.plan import plan_table
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
    assert comparison.unfinished > 0
    assert comparison.simulated is None


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


def compared(results: Path, execution: dict | None = None, **plan) -> PlanComparison:
    """Return the comparison of a study whose runs are all finished: 6 s each, at the same time."""
    store = Store(results)
    for cell in STUDY.cells:
        for seed, identity in cell.runs.items():
            record = make_record(cell, seed, 60.0)
            changed = {**record.execution, **(execution or {})}
            store.run(identity).write(record.model_copy(update={"execution": changed}))
    return compare_with_plan(make_plan(STUDY, **plan), STUDY, build_frames(STUDY, store), store)


def test_a_finished_study_is_compared_at_its_own_number_of_devices(tmp_path) -> None:
    comparison = compared(tmp_path)
    runs = comparison.rows[-1].finished
    assert comparison.unfinished == 0
    assert comparison.mean_devices == comparison.mean_concurrency == runs > 4
    assert comparison.simulated == (8, 10.0)
    caption = plan_table(comparison).caption
    assert f"6 s, on average {runs}.0 trainings at a time; the plan simulated 10 s on 8 " in caption
    assert "on 1 device" not in caption


def test_trainings_that_share_a_gpu_use_one_device(tmp_path) -> None:
    walls = {"wall_seconds": {1: 60.0, 4: 20.0, 64: 10.0}}
    comparison = compared(tmp_path / "gpu", {"device": "cuda", "sharing": 16}, **walls)
    assert comparison.mean_devices == comparison.mean_concurrency / 16 < 4
    assert comparison.simulated == (4, 20.0)
    assert "3.2 devices; the plan simulated 20 s on 4 devices." in plan_table(comparison).caption
    on_cpu = compared(tmp_path / "cpu", {"device": "cpu", "sharing": 16})
    assert on_cpu.mean_devices == on_cpu.mean_concurrency


def test_a_plan_that_was_made_in_between_is_not_compared_with_the_whole_time(tmp_path) -> None:
    comparison = compared(tmp_path, done=1)
    assert comparison.simulated is None
    caption = plan_table(comparison).caption
    assert "when 1 training was finished." in caption
    assert "simulated" not in caption.lower()


def test_the_section_is_there_with_a_plan_and_not_without(results) -> None:
    page = write_report(STUDY, results)
    assert "Plan and reality" not in page.read_text()
    write(make_plan(STUDY), results)
    page = write_report(STUDY, results)
    text, markdown = page.read_text(), (page.parent / "results.md").read_text()
    assert '<div class="table" id="plan">' in text
    assert "Planned on 2025-01-01 for NVIDIA A100, modelled as a100" in text
    assert "from the model alone." in text
    assert "left when it was planned: 60 s on 1 device and 10 s on 8 devices." in markdown
    assert "share a device" not in text
    assert "| in all | 26 | 104 s | 2.6 min | 1.50 |" in markdown
    more = {1: 60.0, 8: 10.0, 64: 10.0, 1000: 10.0}
    write(make_plan(STUDY, side_by_side=4, wall_seconds=more), results)
    write_report(STUDY, results)
    markdown = (page.parent / "results.md").read_text()
    assert "share a device, 4 at a time" in markdown
    assert "60 s on 1 device and 10 s on 8 devices." in markdown


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
