"""SLURM's answers: the jobs of this folder, whatever variables the user's shell sets."""

import os
import sys
import time
from pathlib import Path

import pytest

from skd.common.lease import hold_lease
from skd.jobs import slurm
from skd.jobs.driver import driverless_jobs
from skd.jobs.shell_variables import misleading_names, remove_misleading
from skd.jobs.workers import run_workers

COMMENT = "rule_train_wildcards_tiny_a--b_kd_0123abcd"
HOSTILE = ("SQUEUE_STATES", "SQUEUE_FORMAT2", "SCANCEL_STATE", "SINFO_FORMAT", "SBATCH_WAIT")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder whose `results` is a link to a scratch disk."""
    (tmp_path / "scratch" / "res" / "tiny").mkdir(parents=True)
    (tmp_path / "scratch" / "res" / "tiny" / "specs.json").write_text("{}")
    home = tmp_path / "home"
    home.mkdir()
    (home / "results").symlink_to(tmp_path / "scratch" / "res")
    return home


def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, number: str = "7") -> None:
    row = "\x1f".join((number, "RUNNING", "None", COMMENT, str(folder)))
    (tmp_path / "rows").write_text(f"{row}\n")
    squeue(tmp_path, monkeypatch, f"cat {tmp_path / 'rows'}")


def test_jobs_are_found_by_whatever_links_results_are_reached(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "me").symlink_to(home)
    for submitted_in in (home, tmp_path / "me"):
        queue(tmp_path, monkeypatch, submitted_in)
        for folder in (home / "results", tmp_path / "me" / "results", tmp_path / "scratch/res"):
            assert [job.id for job in driverless_jobs("tiny", folder)] == ["7"], folder
    monkeypatch.chdir(tmp_path / "me")
    assert len(driverless_jobs("tiny", Path("results"))) == 1


def test_jobs_of_another_folder_are_left_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "results").mkdir(parents=True)
    for folder in (tmp_path / "other", tmp_path / "gone", tmp_path / "scratch"):
        queue(tmp_path, monkeypatch, folder)
        assert driverless_jobs("tiny", home / "results") == []


def test_a_job_that_holds_a_run_is_found_where_the_folder_was_moved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(tmp_path, monkeypatch, tmp_path / "as-it-was-called")
    assert driverless_jobs("tiny", home / "results") == []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with hold_lease(home / "results" / "runs" / "a", wait=False):
        assert [job.id for job in driverless_jobs("tiny", home / "results")] == ["7"]
        queue(tmp_path, monkeypatch, tmp_path / "as-it-was-called", number="8")
        assert driverless_jobs("tiny", home / "results") == []


def test_variables_of_the_shell_do_not_reach_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HOSTILE:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CLUSTERS", "gpus")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 600))
    squeue(tmp_path, monkeypatch, f"env > {tmp_path / 'seen'}; echo {end}")
    assert slurm.job_time_left() == pytest.approx(600, abs=5)
    environment = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert environment["SLURM_TIME_FORMAT"] == "standard"
    assert (
        not {*HOSTILE, "SLURM_CLUSTERS"} & environment.keys()
    )  # a job's cluster is that of its node
    slurm.active_jobs(tmp_path)
    environment = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert not {*HOSTILE} & environment.keys()
    assert environment["SLURM_CLUSTERS"] == "gpus"  # the user chooses where jobs are submitted
    assert environment["SBATCH_ACCOUNT"] == "mine"


def test_the_driver_removes_them_for_the_plugin() -> None:
    environment = dict.fromkeys((*HOSTILE, "SLURM_TIME_FORMAT"), "1")
    allowed = dict.fromkeys(("SBATCH_ACCOUNT", "SLURM_CONF", "PATH"), "1")
    shell = environment | allowed
    assert remove_misleading(shell) == sorted(environment)
    assert shell == allowed
    assert misleading_names(shell) == []


def test_an_end_that_cannot_be_read_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("skd.jobs.workers.TIME_LIMIT_POLL_SECONDS", 0.0)
    squeue(tmp_path, monkeypatch, "echo Tomorr 12:00")
    worker = [sys.executable, "-c", "import time; time.sleep(1)"]
    assert run_workers([worker], {}, tmp_path / "log").status == 0
    log = (tmp_path / "log").read_text()
    assert log.count("the end of this job cannot be read: squeue prints 'Tomorr 12:00'") == 1
    assert "no limit known" in log
