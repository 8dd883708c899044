"""What SLURM says of its jobs, and what it is asked to do with them. Imports no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from skd.errors import SkdError

TIMEOUT_SECONDS = 60
# SLURM's own KillWait is 30 s by default: a cancelled job has so long to save.
END_SECONDS = 120.0
ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED")
_SEPARATOR = "\x1f"
_FIELDS = ("%i", "%T", "%r", "%k", "%Z")


class SlurmError(SkdError):
    """SLURM is here and does not answer."""


@dataclass(frozen=True)
class Job:
    """A job in SLURM's queue."""

    id: str
    state: str
    reason: str  # why it waits, in SLURM's words
    comment: str  # the plugin's: rule_RULE_wildcards_VALUES

    @property
    def pending(self) -> bool:
        """Whether it waits to be started."""
        return self.state in ("PENDING", "REQUEUED")


def job_id() -> str | None:
    """Return the SLURM job that this process belongs to, or none."""
    return os.environ.get("SLURM_JOB_ID")


def time_left() -> float | None:
    """Return the seconds until this process's job reaches its limit; none outside of a job.

    SLURM is asked: its variables do not reach a step, and an administrator may move the limit.
    """
    job = job_id()
    said = _output("squeue", "--noheader", "--jobs", job, "--format=%e") if job else None
    try:
        return datetime.fromisoformat((said or "").strip()).timestamp() - time.time()
    except ValueError:  # no limit, no job, or no squeue
        return None


def requeue() -> bool:
    """Put this process's job back into the queue, which ends it; returns whether SLURM agreed."""
    job = job_id()
    return job is not None and _output("scontrol", "requeue", job) is not None


def jobs_of(folder: Path) -> list[Job]:
    """Return this user's jobs submitted from a folder that have not ended; none without SLURM.

    Raises:
        SlurmError: SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return []
    said = _output("squeue", "--noheader", "--me", f"--format={_SEPARATOR.join(_FIELDS)}")
    if said is None:
        raise SlurmError("SLURM does not answer (squeue fails); try again when it does")
    rows = [line.split(_SEPARATOR) for line in said.splitlines()]
    return [
        Job(id=row[0], state=row[1], reason=row[2], comment=row[3])
        for row in rows
        if len(row) == len(_FIELDS)
        and row[1] in ACTIVE
        and Path(row[4]).resolve() == folder.resolve()
    ]


def cancel(jobs: Iterable[Job], seconds: float = END_SECONDS) -> list[Job]:
    """Cancel jobs, which save, and wait until they have ended; return those that have not."""
    left = {job.id: job for job in jobs}
    if not left:
        return []
    _output("scancel", *left)
    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        time.sleep(1)
        said = _output("squeue", "--noheader", "--me", "--format=%i")
        if said is not None:
            left = {name: job for name, job in left.items() if name in said.split()}
    return [*left.values()]


def _output(*command: str) -> str | None:
    """Return what a SLURM command prints; none where it fails or there is no SLURM."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
