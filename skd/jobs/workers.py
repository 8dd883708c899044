"""Start the trainings of one job as worker processes, and watch them.

A process that is killed cannot report why; its parent, this module, can. The parent imports no
torch, so it uses little memory. It writes the failure note, makes the workers save before the job's
time limit, and writes the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from skd.common.errors import FAILED, INTERRUPTED
from skd.common.files import naming_path_in_errors
from skd.common.lease import read_holder
from skd.jobs import slurm
from skd.store.records import Failure
from skd.store.store import StoreEntry

POLL_SECONDS = 0.2
# How often SLURM is asked for the end of the job, which an administrator may change.
TIME_LIMIT_POLL_SECONDS = 60.0
# Signals that ask a process to end; a worker that ends on one has not failed.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


@dataclass(frozen=True)
class WorkersResult:
    """How a job's workers ended.

    Attributes:
        statuses: the exit status of each worker.
        was_stopped: whether a signal or the time limit stopped the job.
        requeued: whether the job is back in SLURM's queue and resumes later.
    """

    statuses: tuple[int, ...]
    was_stopped: bool
    requeued: bool

    @property
    def status(self) -> int:
        """The job's exit status."""
        if self.was_stopped and any(self.statuses):
            return INTERRUPTED
        return FAILED if any(self.statuses) else 0


@dataclass
class _Job:
    """The workers of a job, their runs, and where their output goes."""

    entries: Mapping[str, StoreEntry]
    log: Path | None
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    was_stopped: bool = False
    slurm_error_logged: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def log_line(self, line: str) -> None:
        """Write a line to standard output and to the logs, any of which may be closed or full."""
        with self.lock, contextlib.suppress(OSError):
            print(line, flush=True)
        for path in (self.log, history_log(self.log)) if self.log else ():
            with self.lock, contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def seconds_left(self) -> float | None:
        """Return the seconds to the SLURM job's time limit; log once why they are not known."""
        try:
            return slurm.job_time_left()
        except slurm.SlurmError as error:
            if not self.slurm_error_logged:
                self.log_line(str(error))
            self.slurm_error_logged = True
            return None

    def stop(self, reason: str) -> None:
        """Make the workers save and exit."""
        if not self.was_stopped:
            self.was_stopped = True
            self.log_line(f"{reason}: saving")
        self.terminate()

    def terminate(self) -> None:
        """Ask the workers that still run to save and exit."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()


class _TimeLimit:
    """The time limit of the SLURM job, and when its workers must start to save."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.seconds_left = job.seconds_left()  # at the time `known_at`
        self.known_at = self.asked_at = time.monotonic()
        self.margin = 0.0 if self.seconds_left is None else saving_margin(self.seconds_left)

    def is_near(self) -> bool:
        """Return whether the workers must start to save; ask SLURM again from time to time."""
        if time.monotonic() - self.asked_at > TIME_LIMIT_POLL_SECONDS:
            seconds_left = self.job.seconds_left()
            if self.seconds_left is None and seconds_left is not None:
                self.margin = saving_margin(seconds_left)
            if seconds_left is not None:
                self.seconds_left, self.known_at = seconds_left, time.monotonic()
            self.asked_at = time.monotonic()
        if self.seconds_left is None:
            return False
        return self.seconds_left - (time.monotonic() - self.known_at) < self.margin


def history_log(log: Path) -> Path:
    """Return the log of all attempts; Snakemake removes a job's log before each attempt."""
    return log.with_suffix(".history.log")


def run_workers(
    commands: Sequence[Sequence[str]], entries: Mapping[str, StoreEntry], log: Path | None = None
) -> WorkersResult:
    """Run worker commands until they end; copy their output to standard output and to the log.

    SIGTERM and SIGINT reach the workers as SIGTERM, on which they save. Shortly before the time
    limit of this SLURM job, the workers are stopped in the same way and the job is requeued. If a
    worker is killed, its run gets a failure note.

    Args:
        commands: one command for each worker.
        entries: the runs that the workers may train, by their names in messages.
        log: a file to append to, in addition to the log of all attempts.
    """
    job = _Job(entries, log)
    if log is not None:
        with naming_path_in_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
    limit = _TimeLimit(job)
    _log_slurm_job(job, limit)
    progress_before = _progress(entries)
    time_limit_reached = False
    with _signals(job):
        for command in commands:
            job.processes.append(_start(command))
        if job.was_stopped:  # before the workers were started
            job.terminate()
        readers = [threading.Thread(target=_copy_output, args=(job, p)) for p in job.processes]
        for reader in readers:
            reader.start()
        noted: set[int] = set()
        while any(process.poll() is None for process in job.processes):
            time.sleep(POLL_SECONDS)
            _note_killed_workers(job, noted)
            if not job.was_stopped and limit.is_near():
                time_limit_reached = True
                job.stop(f"the job's time limit is {limit.margin:.0f} s away")
        _note_killed_workers(job, noted)
        for reader in readers:
            reader.join()
    statuses = tuple(process.returncode for process in job.processes)
    requeued = time_limit_reached and any(statuses) and _requeue(job, progress_before)
    return WorkersResult(statuses, job.was_stopped, requeued)


def saving_margin(seconds_left: float) -> float:
    """Return how long before its limit a job starts to save: a tenth, from 15 s to 5 minutes."""
    return min(max(seconds_left / 10, 15.0), 300.0)


def _log_slurm_job(job: _Job, limit: _TimeLimit) -> None:
    """Log number, host, GPU and time limit of the SLURM job, if there is one."""
    if (number := slurm.current_job_id()) is None:
        return
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    seconds = limit.seconds_left
    time_text = "no limit known" if seconds is None else f"{seconds / 60:.0f} minutes left"
    job.log_line(f"SLURM job {number} on {os.uname().nodename}, GPU {gpus}, {time_text}")


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},  # for every locale
    )


def _copy_output(job: _Job, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        job.log_line(line.rstrip("\n"))


@contextlib.contextmanager
def _signals(job: _Job) -> Iterator[None]:
    """Stop the job's workers on SIGTERM and SIGINT within the block."""

    def stop(number: int, frame: object) -> None:
        # In a thread, because the interrupted code may have the lock of the log.
        threading.Thread(target=job.stop, args=(signal.Signals(number).name,)).start()

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _note_killed_workers(job: _Job, noted: set[int]) -> None:
    """Write a failure note for the run that a killed worker was training."""
    for process in job.processes:
        status = process.poll()
        if status is None or status >= 0 or process.pid in noted:
            continue
        noted.add(process.pid)
        name = signal.Signals(-status).name
        if name in STOP_SIGNALS:
            continue
        hint = " (most often: out of memory)" if name == "SIGKILL" else ""
        runs = [
            (label, entry)
            for label, entry in job.entries.items()
            if _is_leased_by(entry, process.pid)
        ]
        for label, entry in runs:
            reason = f"its process was killed by {name}{hint}"
            job.log_line(f"FAILED {label}: {reason}")
            write_failure_note(entry, reason, "Killed")
        if not runs:
            job.log_line(f"a worker was killed by {name}{hint} between two runs")


def _is_leased_by(entry: StoreEntry, pid: int) -> bool:
    holder = read_holder(entry.folder)
    return holder is not None and holder.pid == pid and holder.host == os.uname().nodename


def write_failure_note(entry: StoreEntry, reason: str, kind: str, details: str = "") -> None:
    """Write to the store why a run has no record, for a process that could not do it itself."""
    note = Failure(
        id=entry.id,
        reason=reason,
        kind=kind,
        details=details,
        epoch=progress.epoch if (progress := entry.progress()) else 0,
        failed_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        environment={"host": os.uname().nodename, "slurm_job": slurm.current_job_id()},
    )
    with contextlib.suppress(OSError):  # the log has the reason too
        entry.write(note)


def _progress(entries: Mapping[str, StoreEntry]) -> dict[str, object]:
    """Return what changes when a run progresses: its results, and the time of its checkpoint."""
    return {
        label: (
            entry.record_path.exists(),
            entry.card_path.exists(),
            max(
                (
                    path.stat().st_mtime_ns
                    for pattern in ("checkpoint*.pt", "*.progress.json")  # of runs, of views
                    for path in entry.folder.glob(pattern)
                ),
                default=0,
            ),
        )
        for label, entry in entries.items()
    }


def _requeue(job: _Job, progress_before: dict[str, object]) -> bool:
    """Requeue the job unless it made no progress; return whether SLURM accepted it."""
    holders = (read_holder(entry.folder) for entry in job.entries.values())
    waits_for_others = any(holder.is_alive() for holder in holders if holder is not None)
    if _progress(job.entries) == progress_before and not waits_for_others:
        reason = "the job's time limit left no time for a single step; ask for more (runtime)"
        for label, entry in job.entries.items():
            if not entry.record_path.exists() and not entry.card_path.exists():
                job.log_line(f"FAILED {label}: {reason}")
                write_failure_note(entry, reason, "TimeLimit")
        return False
    accepted = slurm.requeue_job()
    job.log_line(
        "back in SLURM's queue" if accepted else "SLURM refuses to requeue: Snakemake retries"
    )
    return accepted
