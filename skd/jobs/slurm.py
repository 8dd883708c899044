"""What SLURM says of its jobs, and what it is asked to do with them. Imports no torch."""

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
# SLURM's own KillWait is 30 s by default: a cancelled job has so long to save.
CANCEL_SECONDS = 120.0
ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STOPPED")
# What squeue has in place of a job's end where there is none.
NO_LIMIT = ("NONE", "N/A", "Unknown", "UNLIMITED", "NOT_SET")
_SEPARATOR = "\x1f"
_FIELDS = ("%i", "%T", "%r", "%k", "%Z")


class SlurmError(SkdError):
    """SLURM is here and does not answer, or not what it is asked."""


@dataclass(frozen=True)
class SlurmJob:
    """A job in SLURM's queue."""

    id: str
    state: str
    reason: str  # why it waits, in SLURM's words
    comment: str  # the plugin's: rule_RULE_wildcards_VALUES

    @property
    def is_pending(self) -> bool:
        """Whether it waits to be started."""
        return self.state in ("PENDING", "REQUEUED")


def current_job_id() -> str | None:
    """Return the SLURM job that this process belongs to, or none."""
    return os.environ.get("SLURM_JOB_ID")


def job_time_left() -> float | None:
    """Return the seconds until this process's job reaches its limit; none outside of a job.

    SLURM is asked: its variables do not reach a step, and an administrator may move the limit. None
    also where there is no limit, or SLURM does not answer.

    Raises:
        SlurmError: what SLURM answers is no time.
    """
    if (job := current_job_id()) is None:
        return None
    said = _output("squeue", "--noheader", "--jobs", job, "--format=%e", here=True)
    if said is None or said.strip() in NO_LIMIT:
        return None
    try:
        return datetime.fromisoformat(said.strip()).timestamp() - time.time()
    except ValueError:
        raise SlurmError(
            f"the end of this job cannot be read: squeue says '{said.strip()}'. While that is so, "
            "the job does not save before its time limit, and is not requeued"
        ) from None


def requeue_job() -> bool:
    """Put this process's job back into the queue, which ends it; returns whether SLURM agreed."""
    job = current_job_id()
    return job is not None and _output("scontrol", "requeue", job, here=True) is not None


def active_jobs(results: Path, leased: Collection[str] = ()) -> list[SlurmJob]:
    """Return this user's jobs that write into these results and have not ended; none without SLURM.

    Args:
        results: the folder, reached by whatever links.
        leased: jobs known to write there, wherever they were submitted: the folder may have been
            moved since.

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
        SlurmJob(id=row[0], state=row[1], reason=row[2], comment=row[3])
        for row in rows
        if len(row) == len(_FIELDS)
        and row[1] in ACTIVE
        and (row[0] in leased or _same(Path(row[4]) / RESULTS_NAME, results))
    ]


def cancel_jobs(jobs: Iterable[SlurmJob], seconds: float = CANCEL_SECONDS) -> list[SlurmJob]:
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


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, or not seen from here
        return False


def _output(*command: str, here: bool = False) -> str | None:
    """Return what a SLURM command prints; none where it fails or there is no SLURM.

    Args:
        command: the program and its arguments.
        here: ask the cluster that this job runs on. On a login node it is the user's choice
            (SLURM_CLUSTERS), which was also where the jobs were submitted.
    """
    if shutil.which(command[0]) is None:
        return None
    environment = clean_environment(os.environ)
    if here:
        environment.pop("SLURM_CLUSTERS", None)
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, env=environment, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
