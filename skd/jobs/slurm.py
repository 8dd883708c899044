"""SLURM's commands: the queue, time limits, requeueing and cancelling. Imports no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from skd.common.errors import SkdError
from skd.common.names import RESULTS_NAME
from skd.jobs.shell_variables import clean_environment

TIMEOUT_SECONDS = 60
# Longest wait for cancelled jobs; each has SLURM's KillWait to save, by default 30 s.
CANCEL_SECONDS = 120.0
ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED")
# The words of squeue for a job without an end time.
NO_LIMIT = ("NONE", "N/A", "Unknown", "UNLIMITED", "NOT_SET")
_SEPARATOR = "\x1f"
_FIELDS = ("%i", "%T", "%r", "%k", "%Z")


class SlurmError(SkdError):
    """SLURM is installed, but it does not answer or its answer cannot be parsed."""


@dataclass(frozen=True)
class SlurmJob:
    """A job in SLURM's queue."""

    id: str
    state: str
    reason: str  # why it waits, as SLURM reports it
    comment: str  # by Snakemake's plugin: rule_RULE_wildcards_VALUES

    @property
    def is_pending(self) -> bool:
        """Whether the job waits to start."""
        return self.state in ("PENDING", "REQUEUED")


def current_job_id() -> str | None:
    """Return the SLURM job of this process, or ``None``."""
    return os.environ.get("SLURM_JOB_ID")


def job_time_left() -> float | None:
    """Return the seconds until this process's job reaches its time limit.

    SLURM is asked each time: its variables do not reach a job step, and an administrator may change
    the limit. ``None`` outside of a job, without a limit, or if SLURM does not answer.

    Raises:
        SlurmError: SLURM's answer is not a time.
    """
    if (job := current_job_id()) is None:
        return None
    answer = _output("squeue", "--noheader", "--jobs", job, "--format=%e", own_cluster=True)
    if answer is None or answer.strip() in NO_LIMIT:
        return None
    try:
        return datetime.fromisoformat(answer.strip()).timestamp() - time.time()
    except ValueError:
        raise SlurmError(
            f"the end of this job cannot be read: squeue prints '{answer.strip()}'. Until it can "
            "be read, the job does not save before its time limit and is not requeued"
        ) from None


def requeue_job() -> bool:
    """Requeue this process's job, which ends it; return whether SLURM accepted."""
    job = current_job_id()
    return job is not None and _output("scontrol", "requeue", job, own_cluster=True) is not None


def active_jobs(results: Path, leased: Collection[str] = ()) -> list[SlurmJob]:
    """Return this user's active jobs that write to a results folder; empty without SLURM.

    Args:
        results: the results folder; links are followed.
        leased: jobs that are known to write there. They count even if they were submitted in
            another folder: the results folder may have been moved since.

    Raises:
        SlurmError: SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return []
    answer = _output("squeue", "--noheader", "--me", f"--format={_SEPARATOR.join(_FIELDS)}")
    if answer is None:
        raise SlurmError("SLURM does not answer (squeue fails); try again later")
    rows = [line.split(_SEPARATOR) for line in answer.splitlines()]
    return [
        SlurmJob(id=row[0], state=row[1], reason=row[2], comment=row[3])
        for row in rows
        if len(row) == len(_FIELDS)
        and row[1] in ACTIVE
        and (row[0] in leased or _is_same_folder(Path(row[4]) / RESULTS_NAME, results))
    ]


def cancel_jobs(jobs: Iterable[SlurmJob], seconds: float = CANCEL_SECONDS) -> list[SlurmJob]:
    """Cancel jobs, which save first, and wait for their end; return those that did not end."""
    remaining = {job.id: job for job in jobs}
    if not remaining:
        return []
    _output("scancel", *remaining)
    end = time.monotonic() + seconds
    while remaining and time.monotonic() < end:
        time.sleep(1)
        answer = _output("squeue", "--noheader", "--me", "--format=%i")
        if answer is not None:
            active = answer.split()
            remaining = {name: job for name, job in remaining.items() if name in active}
    return [*remaining.values()]


def _is_same_folder(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:  # one of them does not exist, or not on this machine
        return False


def _output(*command: str, own_cluster: bool = False) -> str | None:
    """Return the output of a SLURM command; ``None`` if it fails or there is no SLURM.

    Args:
        command: the program and its arguments.
        own_cluster: ask the cluster of this job, instead of the cluster that the user chose with
            SLURM_CLUSTERS on the login node, where jobs are submitted.
    """
    if shutil.which(command[0]) is None:
        return None
    environment = clean_environment(os.environ)
    if own_cluster:
        environment.pop("SLURM_CLUSTERS", None)
    try:
        completed = subprocess.run(
            command, capture_output=True, check=False, env=environment, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    return os.fsdecode(completed.stdout) if completed.returncode == 0 else None
