"""The command `skd plan`: what a study will take, before it is submitted. Imports no torch."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skd.cli.lookup import require_folder
from skd.cli.options import writable
from skd.common import bounds
from skd.common.files import write_json
from skd.common.terminal import PlainConsole
from skd.jobs.launch import Parallel
from skd.planning import budget as budgets
from skd.planning import tables
from skd.planning.batches import Shape
from skd.planning.estimates import choose_device
from skd.planning.packing import SideBySide, count
from skd.planning.plan import Plan, keep_plan, make_plan, plan_path, schedules
from skd.planning.simulate import DEVICES, MOST_DEVICES
from skd.planning.survey import Survey, survey
from skd.planning.timings import load
from skd.planning.views_choice import ViewsWish
from skd.store.store import Store
from skd.study.expansion import read_expansion
from skd.study.sheet import read_sheet
from skd.study.sheet_files import find_sheet


class TeacherViewsMode(StrEnum):
    """Whether teachers' views are stored, as in the workflow's configuration."""

    auto = "auto"
    always = "always"
    never = "never"


def plan(
    study: Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")],
    results: Annotated[Path, typer.Option(help="where runs, teachers and reports are kept")] = Path(
        "results"
    ),
    devices: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MOST_DEVICES, help="so many devices too; may be repeated"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="as records name it [the one with most finished runs]")
    ] = None,
    device_model: Annotated[
        str | None, typer.Option(help="a reference device, where nothing was measured [a100]")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, callback=bounds.finite, help="device-hours: propose what to run first"),
    ] = None,
    side_by_side: SideBySide = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="devices that train each run together (processes_per_run)")
    ] = 1,
    accumulate: Annotated[
        int, typer.Option(min=1, help="parts in which each sees its images of a batch")
    ] = 1,
    cells_per_job: Annotated[
        int | None, typer.Option(min=1, help="cells of a pair a job [as --job-minutes allows]")
    ] = None,
    job_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            callback=bounds.finite,
            help="put cells of a pair together up to so long a job",
        ),
    ] = 60.0,
    teacher_views: Annotated[
        TeacherViewsMode, typer.Option(help="store teachers' outputs on all views: where it pays")
    ] = TeacherViewsMode.auto,
    json: Annotated[
        Path | None, typer.Option(callback=writable, help="also write everything to this file")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="replace the plan that is kept")] = False,
) -> None:
    """Estimate what a study will take: device-hours, time on a cluster, memory, disk."""
    if renew or os.path.lexists(results):  # a study may be planned before there is a folder
        require_folder(results)
    expansion, store = read_expansion(study, results), Store(results)
    timings = load(store)
    place = choose_device(expansion, timings, device, device_model)
    parallel = Parallel(processes_per_run=processes, accumulate=accumulate)
    parallel.check(expansion)
    place = parallel.on(place)
    wish = ViewsWish(teacher_views=teacher_views.value)
    found = survey(expansion, store, timings, place, count(side_by_side), wish)
    jobs = found.jobs(Shape(job_minutes=job_minutes, cells_per_job=cells_per_job))
    counts = sorted({*DEVICES, *(devices or ())})
    simulated = schedules(found, jobs, counts)
    made = make_plan(found, simulated)
    remark = _keep(made, results, renew)
    console = PlainConsole()
    console.print(tables.parts_table(found))
    console.print(tables.wall_table(simulated, len(jobs)))
    lines = [*tables.needs(found), *tables.notes(found), remark]
    for line in [*lines, *(f"note: {note}" for note in expansion.notes)]:
        console.print(line, soft_wrap=True)
    proposal = None if budget is None else propose(found, budget)
    if json:
        write_json(json, tables.data(found, simulated, jobs, made, proposal))
    if proposal is not None and budget is not None:
        _print_proposal(console, proposal, study, budget)


def _keep(plan: Plan, results: Path, renew: bool) -> str:
    """Keep a plan in the results, where that can be; return a line that says which one is kept."""
    path = plan_path(results, plan.study)
    if not results.is_dir():
        return f"this plan is not kept: there is no folder {results} for {path}"
    try:
        kept = keep_plan(plan, results, renew)
    except OSError as error:
        if renew:
            raise
        return f"this plan is not kept in {path}: {error.strerror}"
    return f"plan of {kept.made_at}, {kept.done} trainings done then: {path}"


def propose(found: Survey, hours: float) -> budgets.Proposal:
    """Return what fits so many device-hours."""
    runs = {
        key: dict.fromkeys(seeds, found.cell_seconds[key] / len(seeds))
        for key, seeds in found.seeds_left.items()
        if seeds
    }
    teachers = dict(found.teacher_seconds)
    for name, seconds in found.views_left.items():
        teachers[name] = teachers.get(name, 0.0) + seconds
    return budgets.propose(found.expansion, teachers, runs, 3600 * hours)


def _print_proposal(
    console: PlainConsole, proposal: budgets.Proposal, study: str, hours: float
) -> None:
    if proposal.smallest is not None:
        console.print(
            f"\nNothing fits {tables.hours(3600 * hours)}: one pair with one seed takes "
            f"{tables.hours(proposal.smallest)} at least."
        )
        return
    if not proposal.pairs:
        console.print("\nNothing is left to run.")
        return
    console.print(
        f"\nWithin {tables.hours(3600 * hours)}, run first ({tables.hours(proposal.seconds)}):"
    )
    for line in budgets.sheet_lines(proposal, read_sheet(find_sheet(study)).pairs):
        console.print(line, soft_wrap=True)
