"""The workflow runs a study from sheet to report, and reruns only outdated jobs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from skd.study.expansion_files import load_expansion
from tests.builders import tiny
from tests.builders.paths import ROOT

STUDIES = ROOT / "workflow" / "studies"
SHEET = {
    **tiny.SHEET,
    "recipe": {"epochs": 2, "milestones": [1]},
    "methods": ["student", "kd", "skd"],
    "seeds": [0],
}
CELLS = {"resnet8/student", f"{tiny.PAIR}/kd", f"{tiny.PAIR}/skd"}


def write_sheet(folder: Path, sheet: dict[str, Any], comment: str = "") -> None:
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "studies" / "tiny.yaml").write_text(comment + yaml.safe_dump(sheet))


def snakemake(folder: Path, *arguments: str, profile: str = "local") -> subprocess.CompletedProcess:
    """Run the command as typed, from the repository's root, with its results in a folder."""
    environment = {
        **os.environ,
        "SKD_STUDIES": str(folder / "studies"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = ["snakemake", "--profile", profile, "--directory", str(folder), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def everything(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return snakemake(folder, "all", "--config", "study=tiny", *arguments)


def planned(folder: Path, *arguments: str) -> Counter:
    """Return the jobs a dry run announces, by rule; train jobs by cell."""
    done = everything(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    jobs = Counter(re.findall(r"^ *(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE))
    cells = re.findall(r"output: results/tiny/cells/(.+)-[0-9a-f]{8}\.json", done.stdout)
    assert jobs.pop("train", 0) == len(cells)
    return jobs + Counter(cells)


def records(folder: Path) -> dict[str, int]:
    """Return when each run's record was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (folder / "results" / "runs").glob("*/record.json")
    }


def page(folder: Path) -> str:
    return (folder / "results" / "tiny" / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run to its report."""
    folder = tmp_path_factory.mktemp("finished")
    write_sheet(folder, SHEET)
    done = everything(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, its records of earlier jobs included."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


pytestmark = pytest.mark.slow


def test_a_study_runs_to_its_report(finished: Path) -> None:
    assert len(records(finished)) == 3
    cell = next((finished / "results/tiny/cells" / tiny.PAIR).glob("skd-*.json"))
    (outcome,) = json.loads(cell.read_text())
    assert outcome["cell"] == f"{tiny.PAIR}/skd"
    assert [run["outcome"] for run in outcome["runs"]] == ["done"]
    assert outcome["runs"][0]["id"] in records(finished)
    log = next((finished / "results/tiny/logs" / tiny.PAIR).glob("skd-*.log")).read_text()
    assert "epoch 2/2" in log
    assert next((finished / "results/tiny/benchmarks" / tiny.PAIR).glob("skd-*.tsv"))
    assert "resnet8" in page(finished)
    assert json.loads((finished / "results/tiny/analysis.json").read_text())["runs"].keys() == (
        records(finished).keys()
    )


def test_the_driver_leaves_its_study_to_the_next(finished: Path) -> None:
    assert [*(finished / "results" / "tiny" / "driver").iterdir()] == []


def test_a_second_invocation_does_nothing(finished: Path) -> None:
    assert planned(finished) == {}


def test_an_edited_comment_retrains_nothing(copy: Path) -> None:
    write_sheet(copy, SHEET, comment="# Nothing that decides a number.\n")
    assert planned(copy).keys() <= {"analyse", "report", "all"}  # nothing is analysed anew


def test_an_edited_recipe_retrains_what_depends_on_it(copy: Path) -> None:
    write_sheet(copy, {**SHEET, "student_recipes": {"resnet8": {"learning_rate": 0.04}}})
    assert set(planned(copy)) == {*CELLS, "analyse", "report", "all"}
    warmer = [{**tiny.SHEET["pairs"][0], "settings": {"simplifier": {"temperature": 2}}}]
    write_sheet(copy, {**SHEET, "pairs": warmer})
    assert set(planned(copy)) == {f"{tiny.PAIR}/skd", "analyse", "report", "all"}
    # Not even without Snakemake's metadata.
    shutil.rmtree(copy / ".snakemake")
    assert set(planned(copy)) == {f"{tiny.PAIR}/skd", "analyse", "report", "all"}


def test_an_added_seed_trains_that_seed_alone(copy: Path) -> None:
    before = records(copy)
    # The analysis is kept too: Snakemake must not delete it before the rule runs.
    path = copy / "results" / "tiny" / "analysis.json"
    analysis = json.loads(path.read_text())
    for run in analysis["runs"].values():
        run["ece"] = 12.5
    path.write_text(json.dumps(analysis))
    write_sheet(copy, {**SHEET, "methods": ["student"], "seeds": [0, 1]})
    assert everything(copy).returncode == 0
    after = records(copy)
    assert len(after) == len(before) + 1
    assert {run: after[run] for run in before} == before
    analysis = json.loads(path.read_text())
    assert [run["ece"] == 12.5 for run in analysis["runs"].values()] == [True, False]
    assert path.with_suffix(".npz").is_file()


def test_no_trigger_retrains_or_loses_a_finished_run(copy: Path) -> None:
    before = records(copy)
    assert everything(copy, "--forceall").returncode == 0
    assert records(copy) == before


def test_missing_files_are_made_again_and_nothing_else(copy: Path) -> None:
    expansion = load_expansion(str(copy / "studies" / "tiny.yaml"), copy / "results")
    (run,) = expansion.cell(tiny.PAIR, "kd").runs.values()
    folder = copy / "results" / "runs" / run
    teacher = copy / "results" / "teachers" / expansion.teachers[0].id
    record = json.loads((folder / "record.json").read_text())
    before = records(copy)

    teacher.rename(copy / "teacher")  # this alone causes no training
    assert planned(copy) == {"teacher": 1, "analyse": 1, "report": 1, "all": 1}
    folder.rename(copy / "run")
    assert set(planned(copy)) == {"teacher", f"{tiny.PAIR}/kd", "analyse", "report", "all"}
    (copy / "teacher").rename(teacher)
    expected = {f"{tiny.PAIR}/kd": 1, "analyse": 1, "report": 1, "all": 1}
    done = snakemake(copy, "all", "--config", "study=tiny", "--dry-run", profile="slurm")
    assert "tiny: 1 outdated output file(s), because runs, teachers" in done.stderr
    assert re.search(r"^train +1$", done.stdout, re.MULTILINE), done.stderr
    assert planned(copy) == expected  # a dry run changes nothing
    assert everything(copy).returncode == 0
    after = records(copy)
    assert {name for name in before if after[name] != before[name]} == {run}
    again = json.loads((folder / "record.json").read_text())
    assert again["last"] == record["last"]
    assert planned(copy) == {}

    again["last"]["top1"] += 1  # trained again elsewhere, with other numbers
    (folder / "record.json").write_text(json.dumps(again))
    assert planned(copy) == expected


def test_a_failed_run_is_reported_and_the_others_continue(tmp_path: Path) -> None:
    bad = {"name": "bad", "like": "kd", "recipe": {"learning_rate": 1e9, "weight_decay": 1e9}}
    write_sheet(tmp_path, {**SHEET, "methods": ["student", bad, "kd"]})
    first = everything(tmp_path)
    assert first.returncode != 0
    assert len(records(tmp_path)) == 2
    note = json.loads(next((tmp_path / "results/runs").glob("*/failure.json")).read_text())
    assert "not finite" in note["reason"]
    assert note["reason"].split(",")[0] in page(tmp_path)
    before = records(tmp_path)
    again = everything(tmp_path)
    assert again.returncode != 0
    assert "FAILED" in again.stdout + again.stderr  # tried again, and failed again
    assert records(tmp_path) == before
    write_sheet(tmp_path, {**SHEET, "methods": ["student", "kd"]})
    assert everything(tmp_path).returncode == 0
    assert records(tmp_path) == before


def test_a_bad_sheet_stops_before_any_job_with_the_place_and_the_names(tmp_path: Path) -> None:
    write_sheet(tmp_path, {**SHEET, "methods": ["student", "kdd"]})
    done = everything(tmp_path)
    assert done.returncode != 0
    assert (
        "unknown method 'kdd' (did you mean 'kd'?); allowed: student, skd, skd+dkd, " in done.stderr
    )
    assert "rule train" not in done.stdout + done.stderr
    unknown = snakemake(tmp_path, "all", "--config", "study=tinny")
    assert "unknown study 'tinny' (did you mean 'tiny'?)" in unknown.stderr


@pytest.mark.parametrize(
    ("profile", "target", "study", "cells"),
    [
        # One student alone, nine methods.
        ("local", "demo", "cifar100", 1 + 9),
        # Nine students alone, 13 pairs.
        ("local", "all", "cifar100", 9 + 13 * 9),
        ("local", "all", "cifar100-published-teachers", 9 + 13 * 9),
        ("slurm", "all", "cifar100", 9 + 13 * 9),
        ("local", "all", "extended", 9 + 13 * 20),
        ("local", "all", "ablation", 2 + 2 * 28),
        ("local", "all", "reviewkd-weights", 3 * 5),
        ("local", "all", "imagenet", 2 + 2 * 9),
    ],
)
def test_the_shipped_studies_dry_run_as_typed(
    tmp_path: Path, profile: str, target: str, study: str, cells: int
) -> None:
    (tmp_path / "studies").mkdir()
    done = snakemake(tmp_path, target, "--dry-run", "--config", f"study={study}", profile=profile)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^train +(\d+)$", done.stdout, re.MULTILINE)[1]) == cells


def test_a_study_of_five_thousand_runs_is_planned(tmp_path: Path) -> None:
    sheet = {**yaml.safe_load((STUDIES / "cifar100.yaml").read_text()), "seeds": 10}
    sheet["methods"] += [
        {"name": f"weight-{n}", "like": "skd+crd", "settings": {"crd": {"weight": n}}}
        for n in range(1, 31)
    ]
    write_sheet(tmp_path, sheet)
    done = everything(tmp_path, "--dry-run", "--quiet")
    assert done.returncode == 0, done.stderr
    specs = json.loads((tmp_path / "results" / "tiny" / "specs.json").read_text())
    assert sum(len(cell["runs"]) for cell in specs["cells"]) == (9 + 13 * 39) * 10
