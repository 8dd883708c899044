"""Sides in separate processes: their turns, failures and end; and the whole command."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from benchmarks import collect
from benchmarks import run as benchmark
from benchmarks.case_runner import MeasurementPlan, run_case
from benchmarks.cases import BenchmarkCase, SideOptions, select_cases
from benchmarks.results import BenchError, read_benchmark
from benchmarks.side_names import BUILDERS, SIDES
from benchmarks.side_process import SideProcess
from benchmarks.sides import mdistiller, mdistiller_checkout
from skd.cli import bench
from skd.common.errors import INTERRUPTED, UnfitError, UnknownNameError
from tests.builders import tiny
from tests.builders.bench_sides import FAKES, PLAN


def test_the_sides_have_builders() -> None:
    assert set(BUILDERS) == set(SIDES)


def test_a_failing_side_says_why_and_the_others_continue(
    case: BenchmarkCase, options: SideOptions
) -> None:
    builders = {
        "good": f"{FAKES}:build",
        "unfit": f"{FAKES}:build_unfit",
        "broken": f"{FAKES}:build_broken",
        "dying": f"{FAKES}:build_dying",
    }
    messages: list[str] = []
    measured = run_case(case, [dict.fromkeys(builders, options)], PLAN, messages.append, builders)
    good, unfit, broken, dying = measured
    assert [side.side for side in measured] == [*builders]
    assert good.failure is None
    assert (len(good.rounds), len(good.evaluations), good.peak_memory_bytes) == (3, 2, 1000)
    assert all(seconds >= 0.001 for seconds in good.rounds)  # of one step
    # Two steps warm up; each of three rounds has four steps and one before them.
    assert good.how["steps"] == 2 + 3 * (1 + 4)
    assert good.how["evaluations"] == 2
    assert (unfit.failure, unfit.unfit) == ("there is no such method", True)
    assert unfit.traceback is None
    assert broken.failure == "ArithmeticError: the sixth step"
    assert "in step" in broken.traceback
    assert not broken.unfit
    assert "SIGKILL" in dying.failure
    rounds = [line.partition(": ")[2] for line in messages if "round" in line]
    turns = [line.partition(",")[0] for line in rounds if "broken" not in line]
    assert turns == ["good"] * 3  # the others failed before the first round or in it
    warmed = [line for line in messages if "warming" in line]
    assert warmed == [f"{case.key}: {name}, warming up" for name in ("good", "broken", "dying")]


def test_ours_is_not_measured_twice_without_views(
    case: BenchmarkCase, options: SideOptions
) -> None:
    live = options.model_copy(update={"teacher": "live"})
    builders = {"skd": f"{FAKES}:build", "skd-live": f"{FAKES}:build"}
    plan = MeasurementPlan(rounds=1, steps=1, warmup=1, evaluations=1)
    measured = run_case(case, [{"skd": live, "skd-live": live}], plan, builders=builders)
    assert [side.side for side in measured] == ["skd"]


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def until_stopped(process: int) -> bool:
    end = time.monotonic() + 10
    while state_of(process) != "T" and time.monotonic() < end:
        time.sleep(0.01)
    return state_of(process) == "T"


def test_a_side_is_stopped_between_its_turns_and_ends_with_the_benchmark(
    case: BenchmarkCase, options: SideOptions
) -> None:
    with SideProcess(f"{FAKES}:build", case, options) as side:
        side.build()
        pid = side._process.pid
        assert until_stopped(pid)
        assert side.time_steps(3) >= 0.001  # a step
        assert until_stopped(pid)
    assert not Path(f"/proc/{pid}").exists()


# mdistiller's side, without mdistiller.


def test_mdistiller_refuses_what_it_cannot_do(
    case: BenchmarkCase, options: SideOptions, tmp_path: Path
) -> None:
    def with_spec(method: str = "kd", dataset: str = "cifar100") -> BenchmarkCase:
        spec = case.spec.model_copy(update={"dataset": mdistiller.DATASET})
        spec = spec if dataset == "cifar100" else case.spec
        return case.model_copy(update={"method": method, "spec": spec})

    with pytest.raises(UnfitError, match=r"no 'skd\+kd'.*allowed: student, kd, dkd, crd, reviewkd"):
        mdistiller.build(with_spec("skd+kd"), options)
    with pytest.raises(UnfitError, match="only CIFAR-100"):
        mdistiller.build(with_spec(dataset="digits"), options)
    with pytest.raises(BenchError, match="--mdistiller"):
        mdistiller.build(with_spec(), options)
    wrong = options.model_copy(update={"mdistiller": tmp_path})
    with pytest.raises(BenchError, match=r"not a checkout of mdistiller.*trainer\.py"):
        mdistiller.build(with_spec(), wrong)
    with pytest.raises(BenchError, match=r"needs the package no_such_thing.*--mdistiller-site"):
        mdistiller_checkout.import_from_checkout("no_such_thing")


def test_mdistillers_own_configuration_is_taken(tmp_path: Path) -> None:
    def leave(name: str, kind: str, teacher: str, student: str, **solver: str) -> Path:
        path = tmp_path / "configs" / "cifar100" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        names = {"TYPE": kind, "TEACHER": teacher, "STUDENT": student}
        path.write_text(yaml.safe_dump({"DISTILLER": names, "SOLVER": solver}))
        return path

    leave("a.yaml", "DKD", "resnet56", "resnet20", TRAINER="dot")
    some, fit = leave("b.yaml", "DKD", "vgg13", "vgg8"), leave("dkd/c.yaml", "DKD", "t", "s")
    assert mdistiller_checkout.config_file(tmp_path, "DKD", "t", "s") == fit
    assert mdistiller_checkout.config_file(tmp_path, "DKD", "resnet56", "resnet20") == some
    with pytest.raises(BenchError, match="no file of type KD"):
        mdistiller_checkout.config_file(tmp_path, "KD", "t", "s")


@pytest.mark.slow
@pytest.mark.skipif("SKD_MDISTILLER" not in os.environ, reason="it names no checkout of mdistiller")
def test_mdistiller_itself(
    options: SideOptions, cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_DATA", str(cifar_root))
    study = tiny.study(
        dataset={"name": "cifar100"},
        recipe={"epochs": 1, "milestones": [], "batch_size": 16},
        teachers={"resnet56": {"train": {"seed": 0}}},
        pairs=[{"teacher": "resnet56", "student": "resnet20"}],
        methods=[*mdistiller.TYPES],
    )
    places = {"mdistiller": os.environ["SKD_MDISTILLER"]}
    places["mdistiller_site"] = os.environ.get("SKD_MDISTILLER_SITE")
    options = SideOptions.model_validate({**options.model_dump(), **places})
    for case in select_cases(study):
        with SideProcess(BUILDERS["mdistiller"], case, options) as side:
            execution = side.build()
            assert execution["teacher"] == ("none" if case.method == "student" else "live")
            assert side.time_steps(2) > 0
            assert side.finish()["peak_memory_bytes"] > 2**20


# The command.


def run(*arguments: Any) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(bench.bench)
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def test_wrong_arguments_name_the_allowed_ones(options: SideOptions, tmp_path: Path) -> None:
    assert [*benchmark.select_sides((), options)] == ["skd", "skd-live", "plain"]
    with_clone = options.model_copy(update={"mdistiller": tmp_path})
    assert [*benchmark.select_sides([], with_clone)] == [*SIDES]
    chosen = benchmark.select_sides(["plain", "skd-live"], options)
    assert {name: side_options.teacher for name, side_options in chosen.items()} == {
        "skd-live": "live",
        "plain": "auto",
    }
    with pytest.raises(UnknownNameError, match=r"side 'plian'.*skd, skd-live, plain, mdistiller"):
        benchmark.select_sides(["plian"], options)
    assert run("--rounds", 0).exit_code == 2
    refused = run("--variant", "recoded")
    assert isinstance(refused.exception, UnknownNameError)
    assert "did you mean 'recorded'" in str(refused.exception)
    assert "--mdistiller" in run("--help").output


def test_sigterm_ends_the_command_as_an_error_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, benchmark._exit_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_the_command_measures_writes_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = tmp_path / "tiny.yaml"
    sheet.write_text(json.dumps(tiny.SHEET))  # JSON is YAML
    fakes = {"skd": "build", "skd-live": "build", "mdistiller": "nowhere"}
    builders = {**BUILDERS, **{name: f"{FAKES}:{place}" for name, place in fakes.items()}}
    monkeypatch.setattr(benchmark, "run_case", partial(run_case, builders=builders))
    monkeypatch.setattr(collect, "MEASURE_VIEWS", f"{FAKES}:measure_views")
    places = [sheet, "--results", tmp_path, "--mdistiller", tmp_path]
    usual = [*places, "--device", "cpu", "--threads", 1, "--workers", 0, "--method", "kd"]
    done = run(*usual, "--rounds", 2, "--steps", 1, "--warmup", 1)
    path = next((tmp_path / "bench").glob("*-1-threads-*.json"))
    written = read_benchmark(path)
    assert [row.side for row in written.rows] == ["skd", "skd-live", "plain", "mdistiller"]
    ours, live, plain, absent = written.rows
    assert (ours.how["teacher"], live.how["teacher"]) == ("views", "live")
    assert plain.how | {"teacher_weights": "random", "workers": 0} == plain.how
    assert len(plain.rounds) == 2
    pairs = zip(plain.rounds, ours.rounds, strict=True)
    ratios = [2 * one / other for one, other in pairs]  # two lanes
    assert ours.speed_up.value == pytest.approx(sum(ratios) / 2)
    assert written.peaks["float32"].multiply_adds_per_second > 1e8
    assert plain.share_of_peak > 0
    assert [row.teacher for row in written.teacher_views] == ["teacher"]
    assert [*written.teacher_views[0].pays_after_runs] == [f"{tiny.PAIR}/kd"]
    assert written.environment["torch"]
    assert "nowhere" in absent.failure
    assert done.exit_code == 1  # for that one
    for expected in ("x plain", "random weights", str(path), "failed: "):
        assert expected in done.output
    long = ["--output", tmp_path / "more.json", "--variant", "kernels", "--variant", "eager"]
    long += ["--lanes", 1, "--lanes", 2, "--long", "--side", "plain", "--side", "skd"]
    done = run(*usual, *long, "--rounds", 1, "--steps", 1, "--warmup", 1, "--minutes", 5)
    assert done.exit_code == 0  # a missing table is not a failure
    written = read_benchmark(tmp_path / "more.json")
    rows = [(row.name, row.lanes, row.unfit) for row in written.rows]
    assert written.minutes == 5
    assert rows == [
        ("skd kernels", 1, True), ("skd kernels", 2, True), ("skd eager", 1, False),
        ("skd eager", 2, False), ("plain", 1, False),
    ]  # fmt: skip
    assert "memory format contiguous" in " ".join(done.output.split())
    lines = [line for line in done.output.splitlines() if str(tmp_path) not in line]
    table = lines[lines.index(f"{tiny.PAIR}, kd") :]
    assert max(map(len, table)) <= 80
    done = run(*usual, "--output", tmp_path / "late.json", "--minutes", 0)
    assert done.exit_code == 0
    assert all(row.skipped for row in read_benchmark(tmp_path / "late.json").rows)
    assert "not measured: time is up" in done.output
