"""Worker processes: the trainings of one job, side by side, watched from outside.

A process that is killed cannot say why. Its parent, which imports no torch and so stays small, can:
it leaves the failure note, has the workers save before the job's time is up, and keeps the log.
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
from skd.common.lease import LeaseHolder, read_holder
from skd.jobs import slurm
from skd.store.records import Failure
from skd.store.store import StoreEntry

POLL_SECONDS = 0.2
# How often SLURM is asked for the job's end, which an administrator may move.
TIME_LIMIT_POLL_SECONDS = 60.0
# Signals by which somebody asks a process to end, and no failure.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


@dataclass(frozen=True)
class WorkersResult:
    """How a job's workers ended."""

    statuses: tuple[int, ...]
    stopped: bool  # asked to, by a signal or the job's own clock
    requeued: bool  # back in SLURM's queue: it goes on later

    @property
    def status(self) -> int:
        """The job's exit status."""
        if self.stopped and any(self.statuses):
            return INTERRUPTED
        return FAILED if any(self.statuses) else 0


@dataclass
class _Job:
    commands: Sequence[Sequence[str]]
    entries: Mapping[str, StoreEntry]
    log: Path | None
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    stopped: bool = False
    end_unknown: bool = False  # told that the job's end cannot be read
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, line: str) -> None:
        """Write a line to the log and to standard output, where either may be gone or full."""
        with self.lock, contextlib.suppress(OSError):
            print(line, flush=True)
        for path in (self.log, history_log(self.log)) if self.log else ():
            with self.lock, contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def time_left(self) -> float | None:
        """Return the seconds to the SLURM job's limit, where they are known; say once why not."""
        try:
            return slurm.job_time_left()
        except slurm.SlurmError as error:
            if not self.end_unknown:
                self.tell(str(error))
            self.end_unknown = True
            return None

    def stop(self, why: str) -> None:
        """Have the workers save and leave."""
        if not self.stopped:
            self.stopped = True
            self.tell(f"{why}: saving")
        for process in self.processes:
            if process.poll() is None:
                process.terminate()


def history_log(log: Path) -> Path:
    """Return the log of all attempts: Snakemake removes a job's log before each."""
    return log.with_suffix(".history.log")


def run_workers(
    commands: Sequence[Sequence[str]], entries: Mapping[str, StoreEntry], log: Path | None = None
) -> WorkersResult:
    """Run worker commands to their end; what they print goes to the log and on.

    SIGTERM and Ctrl-C are passed on as SIGTERM, at which a worker saves. Shortly before the time
    limit of the SLURM job around us the workers are stopped in the same way, and the job is put
    back into the queue. A run whose process is killed gets a failure note.

    Args:
        commands: one a worker.
        entries: the runs that they may train, by the name that messages have for them.
        log: a file to append to, beside the log of all attempts.
    """
    job = _Job(commands, entries, log)
    if log is not None:
        with naming_path_in_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
    left = job.time_left()
    margin = saving_margin(left) if left is not None else 0.0
    if (number := slurm.current_job_id()) is not None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        limit = "no limit known" if left is None else f"{left / 60:.0f} minutes left"
        job.tell(f"SLURM job {number} on {os.uname().nodename}, GPU {gpus}, {limit}")
    before = _progress(entries)
    late = False
    with _signals(job):
        for command in commands:
            job.processes.append(_start(command))
        if job.stopped:  # before there was anybody to pass it on to
            job.stop("")
        readers = [threading.Thread(target=_pass_on, args=(job, p)) for p in job.processes]
        for reader in readers:
            reader.start()
        seen: set[int] = set()
        asked = told = time.monotonic()
        while any(process.poll() is None for process in job.processes):
            time.sleep(POLL_SECONDS)
            _note_deaths(job, seen)
            if job.stopped:
                continue
            if time.monotonic() - asked > TIME_LIMIT_POLL_SECONDS:
                now = job.time_left()
                if left is None and now is not None:
                    margin = saving_margin(now)
                if now is not None:
                    left, told = now, time.monotonic()
                asked = time.monotonic()
            if left is not None and left - (time.monotonic() - told) < margin:
                late = True
                job.stop(f"the job's time limit is {margin:.0f} s away")
        _note_deaths(job, seen)
        for reader in readers:
            reader.join()
    statuses = tuple(process.returncode for process in job.processes)
    requeued = late and any(statuses) and _requeue(job, before)
    return WorkersResult(statuses, job.stopped, requeued)


def saving_margin(seconds_left: float) -> float:
    """Return how long before its limit a job begins to save: a tenth, from 15 s to 5 minutes."""
    return min(max(seconds_left / 10, 15.0), 300.0)


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},  # whatever the locale
    )


def _pass_on(job: _Job, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        job.tell(line.rstrip("\n"))


@contextlib.contextmanager
def _signals(job: _Job) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        # Not told from here: the interrupted frame may hold the lock.
        threading.Thread(target=job.stop, args=(signal.Signals(number).name,)).start()

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _note_deaths(job: _Job, seen: set[int]) -> None:
    """Leave a failure note for what a killed worker was training."""
    for process in job.processes:
        status = process.poll()
        if status is None or status >= 0 or process.pid in seen:
            continue
        seen.add(process.pid)
        name = signal.Signals(-status).name
        if name in STOP_SIGNALS:
            continue
        hint = " (most often: out of memory)" if name == "SIGKILL" else ""
        held = [(label, entry) for label, entry in job.entries.items() if _by(entry, process.pid)]
        for label, entry in held:
            reason = f"its process was killed by {name}{hint}"
            job.tell(f"FAILED {label}: {reason}")
            write_failure_note(entry, reason, "Killed")
        if not held:
            job.tell(f"a worker was killed by {name}{hint} between two runs")


def _by(entry: StoreEntry, pid: int) -> bool:
    found: LeaseHolder | None = read_holder(entry.folder)
    return found is not None and found.pid == pid and found.host == os.uname().nodename


def write_failure_note(entry: StoreEntry, reason: str, kind: str, details: str = "") -> None:
    """Say in the store why a run has no record, where nobody else could."""
    note = Failure(
        id=entry.id,
        reason=reason,
        kind=kind,
        details=details,
        epoch=progress.epoch if (progress := entry.progress()) else 0,
        failed_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        environment={"host": os.uname().nodename, "slurm_job": slurm.current_job_id()},
    )
    with contextlib.suppress(OSError):  # the log has it
        entry.write(note)


def _progress(entries: Mapping[str, StoreEntry]) -> dict[str, object]:
    """Return what changes where a run gets on: its newest checkpoint, and whether it is done."""
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


def _requeue(job: _Job, before: dict[str, object]) -> bool:
    """Put the job back into the queue, unless it would only be there for ever."""
    waited_for = any(
        found.is_alive()
        for e in job.entries.values()
        if (found := read_holder(e.folder)) is not None
    )
    if _progress(job.entries) == before and not waited_for:
        reason = "the job's time limit left no time for a single step; ask for more (runtime)"
        for label, entry in job.entries.items():
            if not entry.record_path.exists() and not entry.card_path.exists():
                job.tell(f"FAILED {label}: {reason}")
                write_failure_note(entry, reason, "TimeLimit")
        return False
    agreed = slurm.requeue_job()
    job.tell("back in SLURM's queue" if agreed else "SLURM refuses to requeue: Snakemake retries")
    return agreed
