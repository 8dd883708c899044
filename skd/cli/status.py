"""The commands `skd status` and `skd cancel`. Imports no torch."""

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
from skd.jobs.overview import projected_seconds, study_overview
from skd.jobs.overview_text import render_overview
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
        bool, typer.Option("--watch", help="update the table until the study ends or Ctrl-C")
    ] = False,
) -> None:
    """Show a study's state: its finished, running, queued and failed runs, and when it ends."""
    expansion, store = open_study(study, results), Store(results)
    if not watch:
        PlainConsole().print(_render_status(expansion, store, results)[0])
        return
    console, unfinished = PlainConsole(), True
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while unfinished:
            current, unfinished = _render_status(expansion, store, results)
            live.update(current, refresh=True)
            time.sleep(WATCH_SECONDS * unfinished)


def _render_status(expansion: Expansion, store: Store, results: Path) -> tuple[Group, bool]:
    """Return the overview of a study, and whether runs are still missing or running."""
    overview = study_overview(expansion, store, results)
    seconds = None
    if overview.running_jobs:
        timings = load_timings(store)
        device = choose_device(expansion, timings)
        seconds = projected_seconds(overview, survey_study(expansion, store, timings, device))
    ended = sum(overview.totals[state] for state in ("done", "failed", "unreadable"))
    unfinished = sum(overview.totals.values()) > ended or overview.running_jobs > 0
    return render_overview(overview, seconds), unfinished


def cancel(study: StudyArgument, results: ResultsOption = DEFAULT_RESULTS) -> None:
    """Cancel a study's SLURM jobs if their Snakemake process has ended; the jobs save first.

    Stop a running Snakemake with Ctrl-C instead: it cancels its jobs itself.
    """
    require_results(results)
    name = find_sheet(study).stem
    jobs = driverless_jobs(name, results)
    print(f"{len(jobs)} jobs of study {name} in SLURM's queue: cancelled, saving")
    if remaining := slurm.cancel_jobs(jobs):
        names = ", ".join(job.id for job in remaining)
        raise StudyError(f"these jobs did not end: {names}; cancel them with scancel")
