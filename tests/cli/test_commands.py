"""The `skd` command, in this process: what it prints, writes and returns."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from skd.cli import main
from skd.common.lease import hold_lease
from skd.data import dataset_names
from skd.models import build_model, network_names
from skd.store.store import Store
from skd.study.expansion_files import expansion_path, load_expansion
from skd.study.spec import DatasetSpec

SHEET = """
title: A very small study
dataset: {name: synthetic, train_limit: 64}
recipe: {epochs: 1, milestones: []}
teachers:
  big: {network: resnet8, train: {seed: 0}}
  given: {network: resnet8, import: {file: $SKD_T/given.pth}}
pairs:
  - {teacher: big, student: resnet8}
  - {teacher: given, student: resnet8}
methods: [student, kd]
seeds: [0, 7]
"""
COMMANDS = [
    "teacher",
    "teacher-views",
    "train",
    "bench",
    "bench-loader",
    "tune-kernels",
    "evaluate",
    "export",
    "import-teacher",
    "analyse",
    "list",
    "status",
    "results",
    "cancel",
    "expand",
    "new-baseline",
    "new-transformation",
    "check-baseline",
    "check-data",
    "check-network",
    "plan",
    "show",
    "merge",
    "accept",
    "diff",
]


class Done(NamedTuple):
    status: int
    out: str
    err: str

    def error(self) -> str:
        """Return the one line that the command ended with."""
        assert self.status == 2
        assert self.out == ""
        assert self.err.startswith("skd: ")
        assert self.err.count("\n") == 1
        return self.err


Skd = Callable[..., Done]


@pytest.fixture
def skd(skd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Skd:
    """Run the command as `skd` does, in a folder with one study, `tiny`."""
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "tiny.yaml").write_text(SHEET)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "empty.pth")
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path / "sheets"))
    monkeypatch.setenv("SKD_T", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: Done(*skd(*arguments))


@pytest.fixture
def tiny(skd: Skd, monkeypatch: pytest.MonkeyPatch) -> Skd:
    """Return the command with `tiny` expanded; later calls start no process."""
    assert skd("expand", "tiny").status == 0

    def no_process(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("skd.study.expansion_files.subprocess", SimpleNamespace(run=no_process))
    return skd


RESULTS = Path("results")


# Help and lists.


def test_the_commands_under_test_are_all_there_are() -> None:
    named = [c.name or c.callback.__name__ for c in main.app.registered_commands]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_explains_each_option(command: str) -> None:
    done = CliRunner().invoke(main.app, [command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert f" {command} " in done.output
    rows = [line for line in done.output.splitlines() if line.lstrip("│ *").startswith("--")]
    assert rows
    assert [row for row in rows if len(row.strip("│ ").split("  ")) < 2] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_text_is_cut_on_a_narrow_terminal(command: str) -> None:
    done = CliRunner().invoke(main.app, [command, "--help"], env={"COLUMNS": "80"})
    assert re.findall(r"\S+…", done.output) == []


@pytest.mark.parametrize("command", ["train", "plan", "bench"])
def test_the_options_of_a_long_help_are_grouped(command: str) -> None:
    done = CliRunner().invoke(main.app, [command, "--help"], env={"COLUMNS": "80"})
    panels = re.split(r"╭─ (.+?) ─+╮", done.output)[1:]
    options = {
        heading: re.findall(r"^│ \*? *(--\S+)", text, re.MULTILINE)
        for heading, text in zip(panels[::2], panels[1::2], strict=True)
    }
    assert "--device" in options["The machine"]
    assert max(map(len, options.values())) <= 8


def test_without_a_command_the_help_is_shown() -> None:
    done = CliRunner().invoke(main.app, [])
    assert all(command in done.output for command in COMMANDS)


def test_the_lists_name_all_there_is(skd: Skd) -> None:
    networks = skd("list", "networks").out
    assert set(network_names()) <= set(networks.split())
    (row,) = [line.split() for line in networks.splitlines() if line.split()[:1] == ["resnet56"]]
    parameters = sum(p.numel() for p in build_model("resnet56", 100).parameters())
    assert row[1:4] == ["32", "px", f"{parameters:,}"]
    assert set(dataset_names()) <= set(skd("list", "datasets").out.split())
    methods = skd("list", "methods").out
    rows = {line.split()[0] for line in methods.splitlines() if line[:2].strip()}
    assert {"student", "kd", "skd", "skd+kd"} <= rows
    assert "temperature: 4.0" in methods
    studies = skd("list", "studies").out
    assert "A very small study" in studies
    assert "demo" in studies


# Expansion and the state of a study.


def test_expand_prints_what_there_is_and_writes_it(skd: Skd) -> None:
    done = skd("expand", "tiny", "--results", "elsewhere")
    assert done.status == 0
    assert done.out.startswith("tiny: 2 teachers, 3 cells, 6 runs: ")
    assert expansion_path(Path("elsewhere"), "tiny").is_file()
    assert "1 cells" not in skd("expand", Path("sheets") / "tiny.yaml").out


def test_status_of_a_study_with_no_results(tiny: Skd) -> None:
    done = tiny("status", "tiny")
    assert done.status == 0
    words = [line.split() for line in done.out.splitlines()]
    assert ["all", "runs", "0/6", "6", "missing"] in words
    assert ["resnet8/student", "0/2", "2", "missing"] in words
    assert ["teacher", "given", "0/1", "1", "missing"] in words
    assert list(RESULTS.iterdir()) == [RESULTS / "tiny"]


def test_a_job_of_the_workflow_trains_and_writes_its_output(tiny: Skd) -> None:
    cell = load_expansion("tiny", RESULTS).cell("resnet8", "student")
    job = ["job", "train", "tiny", "resnet8", "student", "--log", "a.log", "--output", "a.json"]
    for side_by_side in ("2", "auto"):  # immediately; then nothing is left
        done = tiny(*job, "--side-by-side", side_by_side, "--expect", cell.digest)
        assert done.status == 0, done.out
        (outcome,) = json.loads(Path("a.json").read_text())
        assert [run["outcome"] for run in outcome["runs"]] == ["done", "done"]
    log = Path("a.log").read_text()
    assert all(f"seed {seed}: last" in log for seed in (0, 7))
    assert Path("a.history.log").read_text() == log
    assert tiny(*job, "--side-by-side", "none").status == 2
    assert tiny(*job, "--expect", "00000000").status == 2


@pytest.mark.parametrize("command", ["train", "teacher", "errors"])
def test_every_command_of_a_job_has_help(command: str) -> None:
    done = CliRunner().invoke(main.app, ["job", command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert f" {command} " in done.output


# Errors: one line, what is allowed, status 2.


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["expand", "tinny"], ["unknown study 'tinny'", "did you mean 'tiny'", "demo"]),
        (["plan", "tinny"], ["did you mean 'tiny'"]),
        (["expand", "nowhere.yaml"], ["no such study sheet: nowhere.yaml"]),
        (
            ["train", "tiny", "big--resnet8", "kdd"],
            ["study tiny has no cell 'big--resnet8/kdd'", "did you mean", "resnet8/student"],
        ),
        (["train", "tiny", "big--resnet8", "kd"], ["not ready; first: skd teacher tiny big"]),
        (
            ["train", "tiny", "resnet8", "student", "--seed", "1"],
            ["no seed 1 in study tiny; allowed: [0, 7]"],
        ),
        (
            ["train", "tiny", "resnet8", "student", "--expect", "00000000"],
            ["resnet8: student is now", "not 00000000", "start it again"],
        ),
        (["train", "tiny", "resnet8", "student", "--device", "gpu"], ["allowed: auto, cpu, cuda"]),
        (["teacher", "tiny", "bigg"], ["no teacher 'bigg'", "did you mean 'big'", "given"]),
        (["teacher", "tiny", "big", "--expect", "0"], ["teacher big is now", "not 0"]),
        (["teacher", "tiny", "given"], ["given.pth does not exist"]),
        (["import-teacher", "x.pth", "--network", "resnet8"], ["x.pth does not exist"]),
        (
            ["evaluate", "empty.pth", "--network", "resnet9", "--dataset", "synthetic"],
            ["unknown network 'resnet9' (did you mean 'resnet8'?)", "wrn_16_2"],
        ),
        (
            ["evaluate", "x.pth", "--network", "resnet8", "--dataset", "digit"],
            ["unknown data set 'digit' (did you mean 'digits'?)", "synthetic"],
        ),
        (["evaluate", "x.pth", "--network", "resnet8", "--dataset", "synthetic"], ["x.pth"]),
        (
            ["evaluate", "x.safetensors", "--network", "resnet8", "--dataset", "synthetic"],
            ["x.safetensors"],
        ),
    ],
    ids=lambda value: " ".join(value) if "/" not in str(value) else "",
)
def test_an_error_is_one_line_that_says_what_to_do(
    tiny: Skd, arguments: list[str], fragments: list[str]
) -> None:
    line = tiny(*arguments).error()
    assert [fragment for fragment in fragments if fragment not in line] == [], line
    assert not (RESULTS / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["list", "network"], "networks"),
        (["trian"], "train"),
        (["train", "tiny", "resnet8", "student", "--seeds", "1"], "--seed"),
        (["train", "tiny", "resnet8", "student", "--if-leased", "steal"], "refuse"),
        (["train", "tiny", "resnet8", "student", "--threads", "0"], "--threads"),
        (["evaluate", "x.pth"], "--network"),
    ],
)
def test_a_wrong_call_names_what_is_right(skd: Skd, arguments: list[str], fragment: str) -> None:
    done = skd(*arguments)
    assert done.status == 2
    assert fragment in done.err
    assert "Traceback" not in done.err


def test_a_bad_sheets_error_says_skd_once(skd: Skd) -> None:
    sheet = Path("sheets") / "tiny.yaml"
    sheet.write_text(SHEET.replace("[student, kd]", "[student, kdd]"))
    direct, through_a_process = skd("expand", "tiny").error(), skd("plan", "tiny").error()
    assert direct.startswith("skd: tiny.yaml: methods: kdd: unknown method 'kdd' (did you mean")
    assert through_a_process == direct
    assert not expansion_path(RESULTS, "tiny").exists()


# From the teacher to the outcome.


def test_teacher_then_students_then_nothing_left(
    tiny: Skd, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_expansion("tiny", RESULTS)
    teacher, cell = study.teacher("big"), study.cell("big--resnet8", "kd")
    done = tiny("teacher", "tiny", "big", "--expect", teacher.id, "--output", "out/card.json")
    assert done.status == 0, done.err
    card = json.loads(Path("out/card.json").read_text())
    assert (card["id"], card["kind"], card["network"]) == (teacher.id, "trained", "resnet8")

    train = ["train", "tiny", cell.pair, "kd", "--output", "out/cell.json"]
    done = tiny(*train, "--seed", 7, "--expect", cell.digest)
    assert done.status == 0, done.err
    record = Store(RESULTS).run(cell.runs[7]).record()
    assert f"big--resnet8/kd seed 7: last {record.last.top1:.2f} %" in done.out
    assert record.spec == cell.run(7)
    assert record.teacher.id == teacher.id
    assert "seed 0" not in done.out
    runs = {run["seed"]: run for run in json.loads(Path("out/cell.json").read_text())[0]["runs"]}
    assert {seed: run["outcome"] for seed, run in runs.items()} == {0: "missing", 7: "done"}
    assert runs[7]["last_top1"] == record.last.top1

    monkeypatch.setattr("skd.training.runs.Training", None)  # nothing is trained again
    assert tiny(*train, "--seed", 7).out == done.out
    words = [line.split() for line in tiny("status", "tiny").out.splitlines()]
    assert ["big--resnet8/kd", "1/2", "1", "missing", f"{record.last.top1:.2f}"] in words


def test_views_are_stored_and_looked_up_by_runs_side_by_side(tiny: Skd) -> None:
    assert "is not in the store" in tiny("teacher-views", "tiny", "big").error()
    tiny("teacher", "tiny", "big")
    train = ["train", "tiny", "big--resnet8", "kd"]
    finished = tiny(*train, "--teacher-views", "float16")
    assert finished.status == 1
    assert "make them first: skd teacher-views" in finished.err
    done = tiny("teacher-views", "tiny", "big", "--output", "out/views.json")
    assert done.status == 0, done.err
    assert "views of big: logits of" in done.out
    (card,) = json.loads(Path("out/views.json").read_text())["files"]
    assert (card["output"], card["precision"]) == ("logits", "float16")
    done = tiny(*train, "--lanes", "2")
    assert done.status == 0, done.err
    cell = load_expansion("tiny", RESULTS).cell("big--resnet8", "kd")
    for seed in cell.runs:
        execution = Store(RESULTS).run(cell.runs[seed]).record().execution
        assert (execution["teacher"], execution["sharing"]) == ("float16", 2)
    again = ["job", "teacher-views", "tiny", "big", "--output", "out/again.json"]
    assert tiny(*again).status == 0  # nothing is started
    assert json.loads(Path("out/again.json").read_text()) == {"files": [card]}


def test_a_failed_run_is_reported_and_noted_and_does_not_stop_the_next(
    tiny: Skd, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skd.training.runs import Training

    def broken(spec: Any, *arguments: Any) -> Training:
        if spec.seed == 0:
            raise RuntimeError("it broke")
        return Training(spec, *arguments)

    monkeypatch.setattr("skd.training.runs.Training", broken)
    done = tiny("train", "tiny", "resnet8", "student", "--output", "cell.json")
    assert done.status == 1
    assert "FAILED resnet8/student seed 0: RuntimeError: it broke" in done.err
    assert "1 of 2 runs have no record" in done.err
    assert "Traceback" not in done.err
    runs = json.loads(Path("cell.json").read_text())[0]["runs"]
    assert [run["outcome"] for run in runs] == ["failed", "done"]
    assert "seed 0" in tiny("status", "tiny").out

    monkeypatch.setattr("skd.training.runs.Training", Training)
    assert tiny("train", "tiny", "resnet8", "student", "--output", "cell.json").status == 0
    runs = json.loads(Path("cell.json").read_text())[0]["runs"]
    assert [run["outcome"] for run in runs] == ["done", "done"]


def test_a_run_that_another_process_trains_is_refused(tiny: Skd) -> None:
    cell = load_expansion("tiny", RESULTS).cell("resnet8", "student")
    with hold_lease(Store(RESULTS).run(cell.runs[0]).folder, wait=False):
        refused = tiny("train", "tiny", "resnet8", "student")
    assert refused.status == 1
    assert "NOT TRAINED resnet8/student seed 0" in refused.err
    assert "is being trained by process" in refused.err
    assert "--if-leased wait" in refused.err


def test_evaluate_and_import_measure_the_same(tiny: Skd) -> None:
    model = build_model("resnet8", 10)
    torch.save(model.state_dict(), "given.pth")
    arguments = ["given.pth", "--network", "resnet8", "--dataset", "synthetic"]
    measured = tiny("evaluate", *arguments)
    assert measured.status == 0, measured.err
    refused = tiny("import-teacher", *arguments)
    assert (refused.status, "Traceback" in refused.err) == (2, False)
    assert "given.pth for resnet8 is a poor teacher" in refused.err
    imported = tiny("import-teacher", *arguments, "--accept-poor")
    assert imported.status == 0, imported.err
    assert "warning: teacher resnet8: top-1 " in imported.err
    (card_path,) = RESULTS.glob("teachers/*/card.json")
    card = json.loads(card_path.read_text())
    assert f"top-1 {card['test_top1']:.2f} %, top-5 {card['test_top5']:.2f} %" in measured.out
    assert "100 test images" in measured.out
    assert f"sha256: {card['source_sha256']}" in imported.out
    assert card["dataset"] == DatasetSpec(name="synthetic").name
    weights = load_file(card_path.with_name("weights.safetensors"))
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
