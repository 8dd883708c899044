"""The command `skd plan`: what a study will take, before it is submitted. Imports no torch."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skd.cli.options import check_writable_option
from skd.cli.results_folder import require_folder
from skd.common import bounds
from skd.common.files import write_json
from skd.common.terminal import PlainConsole
from skd.jobs.torchrun import ParallelConfig
from skd.planning import budget_proposal as budgets
from skd.planning import plan_text
from skd.planning.batches import JobShape
from skd.planning.estimates import choose_device
from skd.planning.side_by_side import SideBySideOption, parse_side_by_side
from skd.planning.simulate import DEVICE_COUNTS, MAX_DEVICES
from skd.planning.stored_plan import StudyPlan, make_plan, plan_path, save_plan, simulate_schedules
from skd.planning.survey import Survey, survey_study
from skd.planning.timings import load_timings
from skd.planning.views_choice import ViewsConfig
from skd.store.store import Store
from skd.study.expansion import load_expansion_readonly
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
        typer.Option(min=1, max=MAX_DEVICES, help="so many devices too; may be repeated"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="as records name it [the one with most finished runs]")
    ] = None,
    device_model: Annotated[
        str | None, typer.Option(help="a reference device, where nothing was measured [a100]")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0, callback=bounds.check_finite, help="device-hours: propose what to run first"
        ),
    ] = None,
    side_by_side: SideBySideOption = "auto",
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
            callback=bounds.check_finite,
            help="put cells of a pair together up to so long a job",
        ),
    ] = 60.0,
    teacher_views: Annotated[
        TeacherViewsMode, typer.Option(help="store teachers' outputs on all views: where it pays")
    ] = TeacherViewsMode.auto,
    json: Annotated[
        Path | None,
        typer.Option(callback=check_writable_option, help="also write everything to this file"),
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="replace the plan that is kept")] = False,
) -> None:
    """Estimate what a study will take: device-hours, time on a cluster, memory, disk."""
    if renew or os.path.lexists(results):  # a study may be planned before there is a folder
        require_folder(results)
    expansion, store = load_expansion_readonly(study, results), Store(results)
    timings = load_timings(store)
    place = choose_device(expansion, timings, device, device_model)
    parallel = ParallelConfig(processes_per_run=processes, accumulate=accumulate)
    parallel.check(expansion)
    place = parallel.on(place)
    wish = ViewsConfig(teacher_views=teacher_views.value)
    found = survey_study(expansion, store, timings, place, parse_side_by_side(side_by_side), wish)
    jobs = found.jobs(JobShape(job_minutes=job_minutes, cells_per_job=cells_per_job))
    counts = sorted({*DEVICE_COUNTS, *(devices or ())})
    simulated = simulate_schedules(found, jobs, counts)
    made = make_plan(found, simulated)
    remark = _keep(made, results, renew)
    console = PlainConsole()
    console.print(plan_text.parts_table(found))
    console.print(plan_text.wall_table(simulated, len(jobs)))
    lines = [*plan_text.resource_lines(found), *plan_text.survey_notes(found), remark]
    for line in [*lines, *(f"note: {note}" for note in expansion.notes)]:
        console.print(line, soft_wrap=True)
    proposal = None if budget is None else proposal_for_hours(found, budget)
    if json:
        write_json(json, plan_text.plan_data(found, simulated, jobs, made, proposal))
    if proposal is not None and budget is not None:
        _print_proposal(console, proposal, study, budget)


def _keep(plan: StudyPlan, results: Path, renew: bool) -> str:
    """Keep a plan in the results, where that can be; return a line that says which one is kept."""
    path = plan_path(results, plan.study)
    if not results.is_dir():
        return f"this plan is not kept: there is no folder {results} for {path}"
    try:
        kept = save_plan(plan, results, renew)
    except OSError as error:
        if renew:
            raise
        return f"this plan is not kept in {path}: {error.strerror}"
    return f"plan of {kept.made_at}, {kept.done} trainings done then: {path}"


def proposal_for_hours(survey: Survey, hours: float) -> budgets.Proposal:
    """Return what fits so many device-hours."""
    runs = {
        key: dict.fromkeys(seeds, survey.cell_seconds[key] / len(seeds))
        for key, seeds in survey.seeds_left.items()
        if seeds
    }
    teachers = dict(survey.teacher_seconds)
    for name, seconds in survey.views_left.items():
        teachers[name] = teachers.get(name, 0.0) + seconds
    return budgets.propose_pairs(survey.expansion, teachers, runs, 3600 * hours)


def _print_proposal(
    console: PlainConsole, proposal: budgets.Proposal, study: str, hours: float
) -> None:
    if proposal.smallest is not None:
        console.print(
            f"\nNothing fits {plan_text.format_hours(3600 * hours)}: one pair with one seed takes "
            f"{plan_text.format_hours(proposal.smallest)} at least."
        )
        return
    if not proposal.pairs:
        console.print("\nNothing is left to run.")
        return
    console.print(
        f"\nWithin {plan_text.format_hours(3600 * hours)}, run first ({plan_text.format_hours(proposal.seconds)}):"
    )
    for line in budgets.proposal_sheet_lines(proposal, read_sheet(find_sheet(study)).pairs):
        console.print(line, soft_wrap=True)
