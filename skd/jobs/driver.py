"""The driver: the Snakemake process that submits a study's jobs. Each study has only one.

Snakemake's own lock remains when a driver is killed, and does not name its owner, so the profiles
do not use it. Instead, a driver has a lease on the study, as a training has on its run. A new
driver takes over from a dead one with all of its jobs.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterable
from pathlib import Path

from skd.common.lease import LeaseHeldError, hold_lease, read_holder
from skd.jobs import slurm
from skd.study.sheet_files import StudyError

RULES = ("train", "teacher", "teacher_views")


def become_driver(studies: Iterable[str], results: Path) -> None:
    """Make this process the driver of some studies until it ends; cancel jobs of a dead driver.

    Snakemake does not recognise the jobs of an earlier driver. They save and are cancelled, and
    the jobs of this driver resume their runs.

    Raises:
        StudyError: one of the studies has another driver that is still running.
    """
    leases = contextlib.ExitStack()
    atexit.register(leases.close)
    for study in studies:
        folder = results.resolve() / study / "driver"  # Snakemake may change its directory
        try:
            leases.enter_context(hold_lease(folder, wait=False))
        except LeaseHeldError as error:
            raise StudyError(
                f"another Snakemake works on study {study}: {error.holder}. Stop it with Ctrl-C "
                "first; if its machine has failed, start again after three minutes"
            ) from error
        try:
            orphans = driverless_jobs(study, results)
        except slurm.SlurmError as error:
            print(f"{error}: runs that jobs of an earlier driver still train are waited for")
            continue
        if orphans:
            print(f"{len(orphans)} jobs of an earlier driver: they save and are cancelled")
        for job in slurm.cancel_jobs(orphans):
            print(f"SLURM job {job.id} did not end; its runs are waited for")


def driverless_jobs(study: str, results: Path) -> list[slurm.SlurmJob]:
    """Return the jobs in SLURM's queue that train a study's runs in a results folder."""
    studies = [path.parent.name for path in results.glob("*/specs.json")]
    folders = {path.parent for path in results.glob("runs/*/lease-*.json")}
    leased = {holder.job for folder in folders if (holder := read_holder(folder)) and holder.job}
    jobs = slurm.active_jobs(results, leased)
    return [job for job in jobs if study_of_comment(job.comment, studies) == study]


def study_of_comment(comment: str, studies: Iterable[str]) -> str | None:
    """Return the study of a job from the comment by Snakemake's SLURM plugin, or ``None``."""
    for rule in RULES:
        rest = comment.removeprefix(f"rule_{rule}_wildcards_")
        matches = [study for study in studies if rest != comment and rest.startswith(f"{study}_")]
        if matches:
            return max(matches, key=len)  # `demo_2` before `demo`
    return None


def job_comment(rule: str, *wildcards: str) -> str:
    """Return the comment by which Snakemake's SLURM plugin names a job in SLURM's queue."""
    return f"rule_{rule}_wildcards_{'_'.join(wildcards)}".replace("/", "_")
