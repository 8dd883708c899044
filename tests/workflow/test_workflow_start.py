"""Configurations, paths and code that Snakemake accepts or refuses with the workflow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.builders import tiny
from tests.builders.paths import ROOT

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def dry_run(folder: Path, *arguments: str, root: Path = ROOT, **variables: str) -> tuple[int, str]:
    """Plan a study as typed in the root of a clone, with its results in a folder.

    Returns the status and all output: a dry run prints Snakemake's errors on standard output.
    """
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    command = [BIN / "snakemake", "--profile", "local", "--directory", folder, "all", "--dry-run"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sheet whose name Snakemake reads as a number."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "my studies").mkdir()
    sheet = {**tiny.SHEET, "methods": ["student"], "seeds": [0]}
    (folder / "my studies" / "2024_05_01.yaml").write_text(yaml.safe_dump(sheet))
    return folder


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("Study=tiny", "config: unknown key 'Study' (did you mean 'study'?); allowed: "),
        ("longest_minutes=1h", "config: longest_minutes: Input should be a valid integer"),
        ("study=[a,b]", "config: study: Input should be a valid string (one study's name"),
    ],
)
def test_a_wrong_configuration_stops_before_anything_is_planned(
    folder: Path, tmp_path: Path, argument: str, message: str
) -> None:
    status, output = dry_run(tmp_path, "--config", argument)
    assert status != 0
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_a_file_of_the_configuration_is_checked_as_written(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text("longest_minutes: 12:00:00\n")
    _, output = dry_run(tmp_path, "--configfile", str(tmp_path / "jobs.yaml"))
    assert "config: longest_minutes: '12:00:00' is read as 43200" in output


@pytest.mark.parametrize("study", ["2024_05_01", "my studies/2024_05_01.yaml"])
def test_a_study_is_taken_by_name_and_by_path(folder: Path, study: str) -> None:
    shell = {"SKD_STUDIES": str(folder / "my studies"), "SQUEUE_FORMAT": "%i"}
    status, output = dry_run(folder, "--printshellcmds", "--config", f"study={study}", **shell)
    assert status == 0, output
    assert "results/2024_05_01/report/index.html" in output
    path = f"'{folder / study}'"  # quoted, for its space
    assert f"python -m skd job train {path if '/' in study else study} resnet8" in output
    warned = "not passed on to SLURM's commands: SQUEUE_FORMAT\n" in output
    assert warned == (shutil.which("sbatch") is not None)


def test_another_clones_code_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "skd").mkdir(parents=True)
    (other / "skd" / "__init__.py").touch()
    status, output = dry_run(folder, PYTHONPATH=str(other))
    assert status != 0
    assert f"Snakemake finds the skd of {other}. Activate" in output
    assert f"in {ROOT}, pip install --editable ." in output
    # A job's `python -m skd` looks in the working directory first.
    _, output = dry_run(other, "--snakefile", str(ROOT / "workflow" / "Snakefile"))
    assert f"the command python finds the skd of {other}" in output


def test_an_environment_that_is_not_activated_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    _, output = dry_run(folder, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "the command python finds no skd" in output
