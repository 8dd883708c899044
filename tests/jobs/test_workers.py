"""A job's workers, their deaths, the time limit, and SLURM's messages."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.common.errors import FAILED, INTERRUPTED
from skd.common.lease import hold_lease
from skd.jobs import slurm
from skd.jobs.driver import become_driver, driverless_jobs, job_comment, study_of_comment
from skd.jobs.snakemake_errors import JobError, find_job_errors, note_job_error
from skd.jobs.workers import run_workers, saving_margin, write_failure_note
from skd.store.store import Store, StoreEntry
from skd.study.sheet import StudyError

HOLD = (
    "import os, sys, time, signal; from pathlib import Path\n"
    "from skd.common.lease import hold_lease\n"
)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", HOLD + code, *map(str, arguments)]


@pytest.fixture
def entry(tmp_path: Path) -> StoreEntry:
    return Store(tmp_path).run("a" * 16)


# Workers.


def test_workers_write_into_the_log_and_their_statuses_count(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "job.log"
    outcome = run_workers([python("print('one')"), python("print('two'); exit(1)")], {}, log)
    assert sorted(log.read_text().split()) == ["one", "two"]
    assert outcome.statuses == (0, 1)
    assert outcome.status == FAILED
    assert run_workers([python("")], {}, log).status == 0
    assert "one" in log.read_text()  # appended to


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_so_that_workers_save(tmp_path: Path, number: int) -> None:
    code = (
        "def save(*_): Path(sys.argv[1]).write_text('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save); print('ready', flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"

    def ask() -> None:
        while "ready" not in (log.read_text() if log.exists() else ""):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    outcome = run_workers([python(code, tmp_path / "checkpoint")], {}, log)
    assert (tmp_path / "checkpoint").read_text() == "saved"
    assert outcome.status == INTERRUPTED
    assert not outcome.requeued


def test_a_killed_worker_leaves_a_note_for_what_it_trained(
    entry: StoreEntry, tmp_path: Path
) -> None:
    other = Store(tmp_path).run("b" * 16)
    code = "with hold_lease(Path(sys.argv[1]), wait=False): os.kill(os.getpid(), signal.SIGKILL)"
    entries = {"pair/kd seed 0": entry, "pair/kd seed 1": other}
    outcome = run_workers([python(code, entry.folder)], entries, tmp_path / "log")
    assert outcome.status == FAILED
    note = entry.failure()
    assert (note.kind, note.repeats) == ("Killed", False)
    assert note.reason == "its process was killed by SIGKILL (most often: out of memory)"
    assert "FAILED pair/kd seed 0: its process was killed" in (tmp_path / "log").read_text()
    assert other.failure() is None


def test_a_process_that_is_asked_to_stop_has_not_failed(entry: StoreEntry, tmp_path: Path) -> None:
    code = "with hold_lease(Path(sys.argv[1]), wait=False): os.kill(os.getpid(), signal.SIGTERM)"
    run_workers([python(code, entry.folder)], {"run": entry}, tmp_path / "log")
    assert entry.failure() is None


# The job's own clock.
SAVES = (
    "folder = Path(sys.argv[1]); folder.mkdir(parents=True, exist_ok=True)\n"
    "def save(*_): (folder / 'checkpoint.pt').write_text(''); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, save); time.sleep(60)"
)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set a time limit that is known when the workers start; return the requests to SLURM."""
    requests: list[str] = []
    monkeypatch.setattr(slurm, "job_time_left", lambda: 16.0)
    monkeypatch.setattr(slurm, "requeue_job", lambda: requests.append("requeue") is None)
    return requests


def test_before_its_time_is_up_a_job_saves_and_is_queued_again(
    entry: StoreEntry, limit: list[str], tmp_path: Path
) -> None:
    outcome = run_workers([python(SAVES, entry.folder)], {"run": entry}, tmp_path / "log")
    assert limit == ["requeue"]
    assert outcome.requeued
    assert outcome.status == INTERRUPTED
    assert entry.failure() is None


def test_a_limit_too_short_for_a_step_is_a_failure_and_no_endless_loop(
    entry: StoreEntry, limit: list[str], tmp_path: Path
) -> None:
    outcome = run_workers([python("time.sleep(60)")], {"run": entry}, tmp_path / "log")
    assert limit == []
    assert not outcome.requeued
    assert "left no time for a single step" in entry.failure().reason


def test_a_job_that_waited_for_another_is_queued_again(
    entry: StoreEntry, limit: list[str], tmp_path: Path
) -> None:
    with hold_lease(entry.folder, wait=False):
        outcome = run_workers([python("time.sleep(60)")], {"run": entry}, tmp_path / "log")
    assert outcome.requeued
    assert entry.failure() is None


@given(st.floats(0, 1e7))
def test_the_time_to_save_is_a_tenth_within_bounds(remaining: float) -> None:
    assert saving_margin(remaining) == pytest.approx(min(max(remaining / 10, 15), 300))


# SLURM's answers.


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put programs of SLURM's names on the path."""
    folder.mkdir(exist_ok=True)
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_without_slurm_there_are_no_jobs_and_no_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm.job_time_left() is None
    assert not slurm.requeue_job()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.active_jobs(tmp_path) == []


def test_the_time_left_is_read_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 600))
    fake(tmp_path / "bin", monkeypatch, squeue=f"echo {end}")
    assert slurm.job_time_left() == pytest.approx(600, abs=5)
    fake(tmp_path / "bin", monkeypatch, squeue="echo NONE")
    assert slurm.job_time_left() is None
    fake(tmp_path / "bin", monkeypatch, squeue="echo slurm is down >&2; exit 1")
    assert slurm.job_time_left() is None


def test_orphans_are_the_jobs_of_this_folder_and_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("demo", "demo_2"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "specs.json").write_text("{}")
    rows = [
        ("1", "RUNNING", "None", "rule_train_wildcards_demo_a--b_kd_0123abcd", tmp_path),
        ("2", "PENDING", "Resources", "rule_teacher_wildcards_demo_a_0123abcd", tmp_path),
        ("3", "RUNNING", "None", "rule_train_wildcards_demo_2_a--b_kd_0123abcd", tmp_path),
        ("4", "RUNNING", "None", "rule_train_wildcards_demo_a--b_kd_0123abcd", "/elsewhere"),
        ("5", "COMPLETED", "None", "rule_train_wildcards_demo_a--b_kd_0123abcd", tmp_path),
        ("6", "RUNNING", "None", "somebody's own", tmp_path),
    ]
    lines = "\n".join("\x1f".join(map(str, row)) for row in rows)
    (tmp_path / "queue").write_text(lines)
    fake(tmp_path / "bin", monkeypatch, squeue="exit 1")
    with pytest.raises(slurm.SlurmError, match="does not answer"):
        driverless_jobs("demo", tmp_path / "results")
    fake(tmp_path / "bin", monkeypatch, squeue=f"cat {tmp_path / 'queue'}")
    orphans = driverless_jobs("demo", tmp_path / "results")
    assert [(job.id, job.is_pending) for job in orphans] == [("1", False), ("2", True)]
    assert [job.id for job in driverless_jobs("demo_2", tmp_path / "results")] == ["3"]


def test_the_comment_names_the_study() -> None:
    comment = job_comment("train", "demo_2", "a--b", "kd", "0123abcd")
    assert comment == "rule_train_wildcards_demo_2_a--b_kd_0123abcd"
    assert study_of_comment(comment, ["demo", "demo_2"]) == "demo_2"
    assert study_of_comment(comment, ["other"]) is None
    assert study_of_comment("rule_report_wildcards_demo", ["demo"]) is None


def test_there_is_one_driver_a_study(tmp_path: Path) -> None:
    with (
        hold_lease(tmp_path / "demo" / "driver", wait=False),
        pytest.raises(StudyError, match="another Snakemake works on study demo: process"),
    ):
        become_driver(["demo"], tmp_path)
    become_driver(["demo", "other"], tmp_path)
    with pytest.raises(StudyError, match="study other"):
        become_driver(["other"], tmp_path)


# Failed jobs in Snakemake's log.
LOG = """
[Sun Nov 22 20:28:08 2026]
Error in rule train:
    message: SLURM-job '5' failed, SLURM status is: 'DEADLINE'. Detailed failure reason unavailable (status command is not 'sacct').For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 1
    input: results/demo/teachers/t.json
    output: results/demo/cells/a--b/kd-0123abcd.json
    log: results/demo/logs/a--b/kd.log, /x/.snakemake/slurm_logs/rule_train/5.log (check log file(s) for error details)
    shell:
        exec python -m skd job train
        (command exited with non-zero exit code)
    external_jobid: 5
[Sun Nov 22 20:28:09 2026]
Error in rule train:
    message: None
    jobid: 2
    output: results/demo/cells/a--b/skd-0123abcd.json
    shell:
        exec python -m skd job train
[Sun Nov 22 20:28:09 2026]
Error in rule teacher:
    message: SLURM sbatch failed. The error message was 'sbatch: error: Batch job submission failed: Invalid partition name specified'.
    sbatch call:
        sbatch --parsable --job-name skd_c5083b56 --wrap="python -m snakemake"
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    output: results/demo/teachers/t-0123.json
"""  # noqa: E501


def test_the_log_names_the_reason_of_a_failed_job() -> None:
    first, second = find_job_errors(LOG)
    assert first.output == "results/demo/cells/a--b/kd-0123abcd.json"
    assert first.message == "SLURM-job '5' failed, SLURM status is: 'DEADLINE'."
    assert first.log == "/x/.snakemake/slurm_logs/rule_train/5.log"
    assert second.output == "results/demo/teachers/t-0123.json"
    assert "Invalid partition name specified" in second.message
    assert find_job_errors("") == []


def test_a_failure_with_a_reason_keeps_its_reason(entry: StoreEntry) -> None:
    error = JobError("results/x.json", "SLURM-job '5' failed", "5.log")
    with hold_lease(entry.folder, wait=False):
        assert not note_job_error(entry, error)  # it runs again
    assert note_job_error(entry, error)
    assert entry.failure().reason == "SLURM-job '5' failed"
    assert note_job_error(
        entry, JobError("results/x.json", "another word", "")
    )  # of a later attempt
    assert entry.failure().reason == "another word"
    write_failure_note(entry, "my own reason", "Killed")
    assert not note_job_error(entry, error)
    assert entry.failure().reason == "my own reason"
