"""`skd status` and `skd cancel`: a study under way, for the person who waits for it. No torch."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live

from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import open_study, require_results
from skd.common.terminal import PlainConsole
from skd.jobs import slurm
from skd.jobs.driver import driverless_jobs
from skd.jobs.overview import projected_seconds, render_overview, study_overview
from skd.planning.estimates import choose_device
from skd.planning.survey import survey_study
from skd.planning.timings import load_timings
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.sheet_files import StudyError, find_sheet

WATCH_SECONDS = 5.0


def status(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    watch: Annotated[
        bool, typer.Option("--watch", help="keep showing it, until Ctrl-C or the end")
    ] = False,
) -> None:
    """Show a study's state: what is done, running, queued, failed and why, and when it will end."""
    expansion, store = open_study(study, results), Store(results)
    if not watch:
        PlainConsole().print(_look(expansion, store, results)[0])
        return
    console, unfinished = PlainConsole(), True
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while unfinished:
            now, unfinished = _look(expansion, store, results)
            live.update(now, refresh=True)
            time.sleep(WATCH_SECONDS * unfinished)


def _look(expansion: Expansion, store: Store, results: Path) -> tuple[Group, bool]:
    """Return what to show of a study now, and whether there may be more to come."""
    found = study_overview(expansion, store, results)
    seconds = None
    if found.running_jobs:
        timings = load_timings(store)
        device = choose_device(expansion, timings)
        seconds = projected_seconds(found, survey_study(expansion, store, timings, device))
    ended = sum(found.totals[state] for state in ("done", "failed", "unreadable"))
    unfinished = sum(found.totals.values()) > ended or found.running_jobs > 0
    return render_overview(found, seconds), unfinished


def cancel(study: StudyArgument, results: ResultsOption = DEFAULT_RESULTS) -> None:
    """Cancel a study's SLURM jobs, which save; for jobs whose Snakemake is gone.

    A living Snakemake is ended with Ctrl-C, and cancels its jobs itself.
    """
    require_results(results)
    name = find_sheet(study).stem
    jobs = driverless_jobs(name, results)
    print(f"{len(jobs)} jobs of study {name} in SLURM's queue: cancelled, saving")
    if left := slurm.cancel_jobs(jobs):
        raise StudyError(f"jobs that do not end: {', '.join(job.id for job in left)}")
