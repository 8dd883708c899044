"""The driver: the Snakemake process that submits a study's jobs. One a study, wherever it runs.

Snakemake's own lock outlives a killed driver and does not say whose it is; the profiles do without.
A driver holds a lease on the study instead, as a training does on its run: of a dead one it takes
over by itself, jobs and all.
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
    """Become the driver of some studies until this process ends; cancel what a dead one left.

    Snakemake does not find the jobs of an earlier driver again. They are cancelled, at which they
    save, and the runs go on in this driver's jobs.

    Raises:
        StudyError: another driver is at work on one of the studies.
    """
    held = contextlib.ExitStack()
    atexit.register(held.close)
    for study in studies:
        folder = results.resolve() / study / "driver"  # Snakemake ends in another directory
        try:
            held.enter_context(hold_lease(folder, wait=False))
        except LeaseHeldError as error:
            raise StudyError(
                f"another Snakemake works on study {study}: {error.holder}. End it with Ctrl-C "
                "first; if its machine is gone, it is taken for dead after three minutes"
            ) from error
        try:
            orphans = driverless_jobs(study, results)
        except slurm.SlurmError as error:
            print(f"{error}: what an earlier driver's jobs train, if any are left, is waited for")
            continue
        if orphans:
            print(f"{len(orphans)} jobs of an earlier driver: they save and are cancelled")
        for job in slurm.cancel_jobs(orphans):
            print(f"SLURM job {job.id} does not end; what it trains is waited for")


def driverless_jobs(study: str, results: Path) -> list[slurm.SlurmJob]:
    """Return the jobs in SLURM's queue that train a study's runs into these results."""
    studies = [path.parent.name for path in results.glob("*/specs.json")]
    folders = {path.parent for path in results.glob("runs/*/lease-*.json")}
    leased = {held.job for folder in folders if (held := read_holder(folder)) and held.job}
    jobs = slurm.active_jobs(results, leased)
    return [job for job in jobs if study_of_comment(job.comment, studies) == study]


def study_of_comment(comment: str, studies: Iterable[str]) -> str | None:
    """Return which study a job belongs to, by the comment that the plugin gives it."""
    for rule in RULES:
        rest = comment.removeprefix(f"rule_{rule}_wildcards_")
        fitting = [study for study in studies if rest != comment and rest.startswith(f"{study}_")]
        if fitting:
            return max(fitting, key=len)  # `demo_2` before `demo`
    return None


def job_comment(rule: str, *wildcards: str) -> str:
    """Return the comment that the plugin gives a job, which names it in SLURM's queue."""
    return f"rule_{rule}_wildcards_{'_'.join(wildcards)}".replace("/", "_")
