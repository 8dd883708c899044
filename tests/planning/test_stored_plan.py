"""Surveys, stored plans, and `skd plan` on studies made by hand."""

import json
from pathlib import Path

import pytest

from skd.planning.batches import JobShape
from skd.planning.job_graph import STARTUP_SECONDS
from skd.planning.job_place import LOCAL_STARTUP_SECONDS, usable_cores
from skd.planning.stored_plan import (
    make_plan,
    plan_path,
    read_plan,
    save_plan,
    save_plan_before_run,
)
from skd.planning.survey import survey_study
from skd.planning.timings import Timings
from skd.store.store import Store
from skd.study.expansion import TeacherNode
from tests.builders.planned_studies import CPU, GPU, study, timing, timings
from tests.builders.records import make_card

PAIRS = (("resnet56", "resnet20"), ("vgg13", "resnet20"), ("vgg13", "MobileNetV2"))


def leave_card(store: Store, node: TeacherNode) -> None:
    store.teacher(node.id).write(make_card(node.id, network=node.spec.network))


def finished(expansion, count: int) -> Timings:
    """Return timings of the first seed of a number of cells."""
    return Timings(
        {
            f"runs/{cell.runs[0]}": timing(cell.spec, "Tesla V100")
            for cell in expansion.cells[:count]
        }
    )


def test_what_is_done_and_left(tmp_path: Path) -> None:
    expansion, store = study(PAIRS), Store(tmp_path)
    leave_card(store, expansion.teacher("vgg13"))
    survey = survey_study(expansion, store, finished(expansion, 2), GPU)
    assert survey.teachers_left == {"resnet56"}
    assert survey.done == 3
    assert survey.seeds_left["resnet20/student"] == (1, 2)
    parts = survey.parts()
    assert [part.name for part in parts["methods"]] == ["student", "kd", "crd"]
    (everything,) = parts["all"]
    assert (everything.trainings, everything.left) == (3 * 8 + 2, 3 * 8 + 2 - 3)
    by_part = sum(part.seconds_left for part in [*parts["pairs"], *parts["teachers"]])
    assert everything.seconds_left == pytest.approx(by_part)
    assert sum(everything.sources.values()) == everything.left


def test_a_finished_study_has_no_job_but_the_report(tmp_path: Path) -> None:
    expansion, store = study(seeds=1), Store(tmp_path)
    leave_card(store, expansion.teachers[0])
    survey = survey_study(expansion, store, finished(expansion, 3), GPU)
    assert [job.name for job in survey.jobs(JobShape())] == ["report"]
    assert survey.is_finished
    assert survey.parts()["all"][0].left == 0


def test_a_run_that_two_cells_share_counts_once(tmp_path: Path) -> None:
    expansion = study()
    twin = expansion.cells[1].model_copy(update={"method": "kd-again"})
    expansion = expansion.model_copy(update={"cells": (*expansion.cells, twin)})
    survey = survey_study(expansion, Store(tmp_path), timings(), GPU)
    assert survey.parts()["all"][0].trainings == 3 * 3 + 1
    assert twin.key not in survey.cell_seconds


def test_side_by_side_shares_a_device(tmp_path: Path) -> None:
    store = Store(tmp_path)
    expansion = study((("vgg13", "MobileNetV2"),), ("student",))  # many small layers
    one, three = (survey_study(expansion, store, timings(), GPU, k) for k in (1, 3))
    assert sum(three.cell_seconds.values()) < sum(one.cell_seconds.values())
    busy = (survey_study(expansion, store, timings(), CPU, k) for k in (1, 3))
    first, second = (sum(survey.cell_seconds.values()) for survey in busy)
    assert first == pytest.approx(second)


def test_the_plan_from_before_is_kept(tmp_path: Path) -> None:
    expansion, store = study(), Store(tmp_path)
    before = make_plan(survey_study(expansion, store, timings(), GPU), [])
    assert save_plan(before, tmp_path) == before == read_plan(plan_path(tmp_path, "planned"))
    same = make_plan(survey_study(expansion, store, timings(), CPU), [])
    assert save_plan(same, tmp_path).device == "cpu"  # nothing was done in between
    later = make_plan(survey_study(expansion, store, finished(expansion, 1), GPU), [])
    assert later.done == 1
    assert save_plan(later, tmp_path).device == "cpu"
    assert save_plan(later, tmp_path, renew=True) == later
    other = make_plan(survey_study(study(seeds=4), store, timings(), GPU), [])
    assert save_plan(other, tmp_path) == other


@pytest.mark.parametrize("local", [True, False])
def test_the_workflow_plans_for_where_its_jobs_run(tmp_path: Path, local: bool) -> None:
    expansion, store = study(), Store(tmp_path)
    survey = survey_study(expansion, store, timings(), GPU)
    save_plan_before_run(survey, JobShape(), tmp_path, local)
    walls = read_plan(plan_path(tmp_path, "planned")).wall_seconds
    assert max(walls) == (1 if local else 1000)
    startup = LOCAL_STARTUP_SECONDS if local else STARTUP_SECONDS
    alone = sum(survey.cell_seconds.values()) + sum(survey.teacher_seconds.values())
    views = sum(survey.views_left.values())
    jobs = len(survey.jobs(JobShape())) - 1
    assert walls[1] == pytest.approx(alone + views + jobs * startup)


def test_no_plan_is_made_from_the_measurements_themselves(tmp_path: Path) -> None:
    expansion, store = study(seeds=1), Store(tmp_path)
    leave_card(store, expansion.teachers[0])
    survey = survey_study(expansion, store, finished(expansion, 3), GPU)
    save_plan_before_run(survey, JobShape(), tmp_path, local=True)
    assert not plan_path(tmp_path, "planned").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"study": 1}'])
def test_a_damaged_plan_counts_as_missing(tmp_path: Path, text: str) -> None:
    path = plan_path(tmp_path, "planned")
    assert read_plan(path) is None
    path.parent.mkdir()
    path.write_text(text)
    assert read_plan(path) is None


@pytest.fixture
def skd_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skd):
    """Run `skd plan planned` on a study made by hand."""
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()

    def run(expansion, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("skd.cli.plan.load_expansion_readonly", lambda *_: expansion)
        return skd("plan", "planned", *arguments)

    return run


def test_the_command(skd_plan) -> None:
    options = ("--jobs", "cluster", "--devices", 3, "--json", "all.json")
    status, out, _ = skd_plan(study(PAIRS), *options)
    assert status == 0
    assert "vgg13--MobileNetV2" in out
    assert "no run was measured on it" in out
    assert "constants of a100: assumed" in out
    assert "plan.json" in out
    data = json.loads(Path("all.json").read_text())
    assert [s["devices"] for s in data["schedules"]] == [1, 2, 3, 4, 8, 16, 32, 64, 100, 256, 1000]
    assert data["plan"] == json.loads(Path("results/planned/plan.json").read_text())
    assert data["jobs"][-1]["name"] == "report"
    assert set(data["cells"]) == {cell.key for cell in study(PAIRS).cells}


def test_the_plan_names_what_the_constants_were_fitted_to(skd_plan) -> None:
    out = skd_plan(study(), "--device-model", "h200")[1]
    assert "constants of h200: fitted to measurements of one H200, PyTorch 2.11, " in out


def test_names_that_are_not_known(skd_plan) -> None:
    status, _, err = skd_plan(study(), "--device-model", "a10")
    assert (status, err.count("\n")) == (2, 1)
    assert "did you mean 'a100'?" in err
    status, _, err = skd_plan(study(), "--device", "NVIDIA A100")
    assert "allowed: none" in err


def test_a_budget(skd_plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planned.yaml").write_text(
        "title: t\ndataset: {name: cifar100}\nteachers: {resnet56: {train: {seed: 0}}}\n"
        "pairs: [{teacher: resnet56, student: resnet20, settings: {kd: {temperature: 2}}}]\n"
        "methods: [student, kd]\nseeds: 3\n"
    )
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    _, out, _ = skd_plan(study(), "--budget", 1000)
    line = "  - {teacher: resnet56, student: resnet20, settings: {kd: {temperature: 2}}}"
    assert f"pairs:\n{line}\nseeds: 3\n" in out
    status, out, _ = skd_plan(study(), "--budget", 0.001)
    assert status == 0
    assert "Nothing fits 0.001 h: one pair with one seed takes" in out


def test_a_finished_study_is_not_planned(skd_plan, monkeypatch: pytest.MonkeyPatch) -> None:
    expansion = study(seeds=1)
    leave_card(Store(Path("results")), expansion.teachers[0])
    monkeypatch.setattr("skd.cli.plan.load_timings", lambda _: finished(expansion, 3))
    status, out, _ = skd_plan(expansion)
    assert status == 0
    assert "Nothing is left to train. No plan of these runs was stored" in out
    assert "devices" not in out
    assert not plan_path(Path("results"), "planned").exists()
    earlier = make_plan(survey_study(expansion, Store(Path("results")), timings(), GPU), [])
    save_plan(earlier, Path("results"))
    assert "compares the plan of" in skd_plan(expansion)[1]


def test_jobs_on_this_machine(skd_plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.cli.plan.gpu_state", lambda: None)
    _, out, _ = skd_plan(study(), "--jobs", "local", "--json", "all.json")
    assert "device: cpu" in out
    data = json.loads(Path("all.json").read_text())
    assert max(schedule["devices"] for schedule in data["schedules"]) == usable_cores()
    assert "cores" in out
    assert "on this machine (otherwise: --jobs cluster); each takes 8 s" in out
    assert f"{STARTUP_SECONDS:g} s" not in out


def test_too_many_runs_on_a_device_are_warned_of(skd_plan) -> None:
    assert "WARNING" not in skd_plan(study())[1]
    assert "more than the 40.0 GiB of a100" in skd_plan(study(), "--side-by-side", 50)[1]


def test_a_study_of_five_thousand_runs(skd_plan) -> None:
    students = [f"resnet20.{place}" for place in range(100)]
    pairs = tuple(("resnet56" if place % 2 else "vgg13", s) for place, s in enumerate(students))
    methods = ("student", *(f"method{place}" for place in range(9)))
    large = study(pairs, methods, seeds=5)
    status, out, _ = skd_plan(large, "--json", "all.json", "--job-minutes", 60)
    assert status == 0
    assert "5002" in out
    schedules = json.loads(Path("all.json").read_text())["schedules"]
    walls = [schedule["wall_seconds"] for schedule in schedules]
    assert walls == sorted(walls, reverse=True)
    assert schedules[-1]["devices"] == 1000
