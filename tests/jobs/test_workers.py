"""What surrounds the trainings of a job: workers, their deaths, the clock, SLURM's words."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.common.errors import FAILED, INTERRUPTED, SkdError, UnknownNameError
from skd.common.lease import hold_lease
from skd.jobs import slurm
from skd.jobs.driver import become_driver, driverless_jobs, job_comment, study_of_comment
from skd.jobs.overview import projected_seconds, study_overview
from skd.jobs.snakemake_errors import JobError, find_job_errors, note_job_error
from skd.jobs.workers import run_workers, saving_margin, write_failure_note
from skd.planning.batches import JobShape, entries_by_rule_output, make_batches
from skd.planning.estimates import default_device, estimate_run
from skd.planning.job_resources import batch_job_resources, teacher_job_resources
from skd.planning.side_by_side import parse_side_by_side, runs_side_by_side, useful_lanes
from skd.planning.survey import survey_study
from skd.store.records import ProgressNote
from skd.store.store import Store, StoreEntry
from skd.study.sheet import StudyError
from tests.builders.planned_studies import GPU, study, timing, timings

HOLD = (
    "from pathlib import Path; from skd.common.lease import lease; import os, sys, time, signal\n"
)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", HOLD + code, *map(str, arguments)]


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def entry(tmp_path: Path) -> StoreEntry:
    return Store(tmp_path).run("a" * 16)


# Workers.


def test_workers_say_into_the_log_and_their_statuses_count(tmp_path: Path) -> None:
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
    code = "with lease(Path(sys.argv[1]), wait=False): os.kill(os.getpid(), signal.SIGKILL)"
    entries = {"pair/kd seed 0": entry, "pair/kd seed 1": other}
    outcome = run_workers([python(code, entry.folder)], entries, tmp_path / "log")
    assert outcome.status == FAILED
    note = entry.failure()
    assert (note.kind, note.repeats) == ("Killed", False)
    assert note.reason == "its process was killed by SIGKILL (most often: out of memory)"
    assert "FAILED pair/kd seed 0: its process was killed" in (tmp_path / "log").read_text()
    assert other.failure() is None


def test_one_who_is_asked_to_end_has_not_failed(entry: StoreEntry, tmp_path: Path) -> None:
    code = "with lease(Path(sys.argv[1]), wait=False): os.kill(os.getpid(), signal.SIGTERM)"
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
    """A time limit that is there as soon as the workers are; returns what SLURM is asked."""
    asked: list[str] = []
    monkeypatch.setattr(slurm, "job_time_left", lambda: 16.0)
    monkeypatch.setattr(slurm, "requeue_job", lambda: asked.append("requeue") is None)
    return asked


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


def test_who_waited_for_another_is_queued_again(
    entry: StoreEntry, limit: list[str], tmp_path: Path
) -> None:
    with hold_lease(entry.folder, wait=False):
        outcome = run_workers([python("time.sleep(60)")], {"run": entry}, tmp_path / "log")
    assert outcome.requeued
    assert entry.failure() is None


@given(st.floats(0, 1e7))
def test_the_time_to_save_is_a_tenth_within_bounds(left: float) -> None:
    assert saving_margin(left) == pytest.approx(min(max(left / 10, 15), 300))


# What SLURM says.


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put programs of SLURM's names on the path."""
    folder.mkdir(exist_ok=True)
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_without_slurm_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm.job_time_left() is None
    assert not slurm.requeue_job()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.active_jobs(tmp_path) == []


def test_the_time_left_is_what_slurm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = driverless_jobs("demo", tmp_path / "results")
    assert [(job.id, job.is_pending) for job in found] == [("1", False), ("2", True)]
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


# What Snakemake's log says of failed jobs.

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


def test_the_log_tells_why_a_job_failed() -> None:
    first, second = find_job_errors(LOG)
    assert first.output == "results/demo/cells/a--b/kd-0123abcd.json"
    assert first.message == "SLURM-job '5' failed, SLURM status is: 'DEADLINE'."
    assert first.log == "/x/.snakemake/slurm_logs/rule_train/5.log"
    assert second.output == "results/demo/teachers/t-0123.json"
    assert "Invalid partition name specified" in second.message
    assert find_job_errors("") == []


def test_who_has_said_why_keeps_its_word(entry: StoreEntry) -> None:
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


# How much a job asks for.


@given(
    asked=st.none() | st.integers(1, 20),
    runs=st.integers(1, 20),
    free=st.integers(0, 10**11),
    each=st.integers(1, 10**10),
    busy=st.floats(0.01, 1),
    attempt=st.integers(1, 4),
)
def test_no_more_runs_share_a_device_than_fit(asked, runs, free, each, busy, attempt) -> None:
    found = runs_side_by_side(asked, runs, free, each, busy, attempt)
    assert 1 <= found <= runs
    if asked is not None:
        assert found <= asked
    elif not free:
        assert found == 1
    elif found > 1:
        assert found * each <= 0.9 * free
        assert found <= useful_lanes(busy)
    if attempt > 1:
        assert found <= max(1, runs_side_by_side(asked, runs, free, each, busy) // 2)


def test_plans_rest_on_timings_of_the_kind_of_device_that_is_expected() -> None:
    expansion = study()
    cell = expansion.cells[0]
    on_cpu = timings(timing(cell.spec, device="a cpu, 1 thread", threads=1))
    on_both = timings(
        timing(cell.spec, device="a cpu, 1 thread", threads=1),
        timing(cell.spec, device="NVIDIA H200"),
    )
    assert default_device(expansion, on_cpu, "a100").name == "a100"
    assert default_device(expansion, on_both, "a100").name == "NVIDIA H200"
    assert default_device(expansion, on_both, "cpu").name == "a cpu, 1 thread"
    with pytest.raises(UnknownNameError, match="allowed: a100"):
        default_device(expansion, on_cpu, "a1000")


def test_what_was_sampled_counts_only_where_no_run_shared_the_device() -> None:
    expansion = study()
    cell = expansion.cells[0]
    device = default_device(expansion, timings(), "a100")

    def share(**measured: float) -> float:
        known = timings(timing(cell.spec, device=device.name, **measured))
        return estimate_run(expansion, cell, known, device).utilisation

    assert share(gpu_utilisation=30.0) == pytest.approx(0.3)
    assert share(gpu_utilisation=90.0, sharing=3) == pytest.approx(share())


def test_a_number_or_auto() -> None:
    assert (parse_side_by_side("auto"), parse_side_by_side("3")) == (None, 3)
    for wrong in ("0", "-1", "many", ""):
        with pytest.raises(SkdError, match="a number from 1, or auto"):
            parse_side_by_side(wrong)


def test_requests_follow_networks_methods_and_attempts(tmp_path: Path) -> None:
    expansion = study((("vgg13", "MobileNetV2"), ("resnet56", "resnet20")))
    found = survey_study(expansion, Store(tmp_path), timings(), GPU, 1)
    asked = {
        f"{batch.pair}/{batch.name}": batch_job_resources(found, batch, 1, None)
        for batch in make_batches(expansion, JobShape(), dict).batches
    }
    assert asked["vgg13--MobileNetV2/kd"].minutes > asked["MobileNetV2/student"].minutes
    batch = next(b for b in make_batches(expansion, JobShape(), dict).batches if b.name == "kd")
    first, second = (batch_job_resources(found, batch, attempt, None) for attempt in (1, 2))
    assert second.minutes == 2 * first.minutes
    assert second.memory_mb == pytest.approx(2 * first.memory_mb, abs=1)
    assert batch_job_resources(found, batch, 5, 60).minutes == 60
    assert teacher_job_resources(found, "vgg13", 1, None).minutes >= 10


# What a person sees.


def test_the_overview_has_progress_and_the_end(tmp_path: Path) -> None:
    expansion, store = study(), Store(tmp_path)
    cell = expansion.cell("resnet56--resnet20", "kd")
    running, failed = store.run(cell.runs[0]), store.run(cell.runs[1])
    running.write(
        ProgressNote(
            epoch=11, epochs=240, images_per_second=1234, seconds_left=3600, at=time.time()
        )
    )
    write_failure_note(failed, "it broke", "Killed")
    with hold_lease(running.folder, wait=False):
        found = study_overview(expansion, store, tmp_path)
    row = next(counts for what, counts, _ in found.rows if what == cell.key)
    assert row == {"running": 1, "failed": 1, "missing": 1}
    assert any("epoch 12/240, 1234 images/s, 1:00:00 left" in line for line in found.lines)
    assert any(f"({failed.id}) failed: it broke; " in line for line in found.lines)
    left = survey_study(expansion, store, timings(), GPU, 1)
    one = projected_seconds(found, left)
    assert one > 3600
    found.running_jobs = 4
    assert projected_seconds(found, left) < one
    found.running_jobs = 0
    assert projected_seconds(found, left) is None


def test_each_job_is_known_by_its_output(tmp_path: Path) -> None:
    expansion = study()
    outputs = entries_by_rule_output(expansion, Store(tmp_path), tmp_path / "results")
    teacher = expansion.teachers[0]
    assert f"results/{expansion.study}/teachers/{teacher.name}-{teacher.id}.json" in outputs
    labels = [label for entries in outputs.values() for label in entries]
    assert len(labels) == 1 + sum(len(cell.runs) for cell in expansion.cells)
