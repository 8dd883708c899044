"""The command `skd plan`: what a study takes, before it is submitted. Imports no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from skd.cli.options import (
    DEFAULT_RESULTS,
    MACHINE,
    AccumulateOption,
    ResultsOption,
    SideBySideOption,
    StudyArgument,
    check_writable_option,
)
from skd.cli.results_folder import require_folder
from skd.common import bounds
from skd.common.choices import TeacherViewsMode
from skd.common.files import write_json
from skd.common.gpu_state import gpu_state
from skd.common.terminal import PlainConsole
from skd.planning import plan_text
from skd.planning.batches import JobShape
from skd.planning.budget_proposal import Proposal, proposal_sheet_lines, propose_for_hours
from skd.planning.devices import PlannedDevice, device_model_of
from skd.planning.estimates import choose_device, default_device
from skd.planning.job_place import JobPlace, JobsChoice, choose_place, usable_cores
from skd.planning.parallel_config import ParallelConfig
from skd.planning.side_by_side import parse_side_by_side
from skd.planning.simulate import MAX_DEVICES, Schedule
from skd.planning.stored_plan import (
    StudyPlan,
    expansion_digest,
    make_plan,
    plan_path,
    read_plan,
    save_plan,
    simulate_schedules,
)
from skd.planning.survey import Survey, survey_study
from skd.planning.timings import Timings, load_timings
from skd.planning.views_choice import ViewsConfig
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import load_expansion_readonly
from skd.study.sheet import read_sheet
from skd.study.sheet_files import find_sheet

# Headings of groups of options in --help.
JOBS = "Jobs"
PLANS = "The plan"

DevicesOption = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        max=MAX_DEVICES,
        metavar="N",
        rich_help_panel=MACHINE,
        help="also simulate this number of devices; may be repeated",
    ),
]
RecordedDeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="device to plan for, by its name in records (default: the one with the most finished "
        "runs)",
    ),
]
DeviceModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="reference device whose constants are used where nothing was measured (default: a100)",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=bounds.check_finite,
        metavar="HOURS",
        rich_help_panel=PLANS,
        help="propose which runs to train first within this number of device-hours",
    ),
]
PlannedProcessesOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=MACHINE,
        help="number of devices that train each run together (processes_per_run)",
    ),
]
CellsPerJobOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=JOBS,
        help="number of cells of a pair in a job (default: as many as --job-minutes allows)",
    ),
]
JobsOption = Annotated[
    JobsChoice,
    typer.Option(
        rich_help_panel=JOBS,
        help="where jobs run; local: on this machine; cluster: on the nodes of a cluster, where a "
        "job takes longer to start; auto: on this machine if it has the planned device and no "
        "SLURM",
    ),
]
JobMinutesOption = Annotated[
    float,
    typer.Option(
        min=0,
        callback=bounds.check_finite,
        metavar="MINUTES",
        rich_help_panel=JOBS,
        help="duration in minutes up to which cells of a pair are combined in one job",
    ),
]
TeacherViewsModeOption = Annotated[
    TeacherViewsMode,
    typer.Option(
        rich_help_panel=JOBS,
        help="whether to store teachers' outputs on all views of the training images; auto: where "
        "that saves time",
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        callback=check_writable_option,
        metavar="FILE",
        rich_help_panel=PLANS,
        help="also write everything to this JSON file",
    ),
]
RenewOption = Annotated[
    bool,
    typer.Option(
        "--renew",
        rich_help_panel=PLANS,
        help="replace the plan that is stored in the results folder",
    ),
]


def plan(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    devices: DevicesOption = None,
    device: RecordedDeviceOption = None,
    device_model: DeviceModelOption = None,
    budget: BudgetOption = None,
    side_by_side: SideBySideOption = "auto",
    processes: PlannedProcessesOption = 1,
    accumulate: AccumulateOption = 1,
    cells_per_job: CellsPerJobOption = None,
    job_minutes: JobMinutesOption = 60.0,
    jobs: JobsOption = "auto",
    teacher_views: TeacherViewsModeOption = "auto",
    json: JsonOption = None,
    renew: RenewOption = False,
) -> None:
    """Estimate what is left of a study: device time, time to finish, memory and disk space."""
    if renew or os.path.lexists(results):  # a study may be planned before the folder exists
        require_folder(results)
    expansion, store = load_expansion_readonly(study, results), Store(results)
    timings = load_timings(store)
    planned_device = _device(jobs, expansion, timings, device, device_model)
    parallel = ParallelConfig(processes_per_run=processes, accumulate=accumulate)
    parallel.check(expansion)
    survey = survey_study(
        expansion,
        store,
        timings,
        parallel.apply_to(planned_device),
        parse_side_by_side(side_by_side),
        ViewsConfig(teacher_views=teacher_views),
    )
    place = _place(jobs, survey.device)
    planned_jobs = survey.jobs(
        JobShape(job_minutes=job_minutes, cells_per_job=cells_per_job), place
    )
    counts = sorted({*place.device_counts, *(devices or ())})
    schedules = simulate_schedules(survey, planned_jobs, counts)
    study_plan = make_plan(survey, schedules)
    if survey.is_finished:
        remark = _finished_remark(survey, results)
    else:
        remark = _store_plan(study_plan, results, renew)
    console = PlainConsole()
    _print_survey(console, survey, schedules, place, len(planned_jobs), devices or ())
    for line in [remark, *(f"note: {note}" for note in expansion.notes)]:
        console.print(line, soft_wrap=True)
    proposal = None if budget is None else propose_for_hours(survey, budget)
    if json:
        write_json(json, plan_text.plan_data(survey, schedules, planned_jobs, study_plan, proposal))
    if proposal is not None and budget is not None:
        _print_proposal(console, proposal, study, budget)


def _device(
    jobs: JobsChoice, expansion: Expansion, timings: Timings, name: str | None, model: str | None
) -> PlannedDevice:
    """Return the planned device: for jobs on this machine its own, if the user names none."""
    if jobs != "local" or name is not None or model is not None:
        return choose_device(expansion, timings, name, model)
    gpu = gpu_state()
    expected = device_model_of(gpu.name, on_cpu=False).name if gpu else "cpu"
    return default_device(expansion, timings, expected)


def _place(choice: JobsChoice, device: PlannedDevice) -> JobPlace:
    """Return where jobs run, from the user's choice and what this machine has."""
    gpu = gpu_state()
    has_slurm = shutil.which("sbatch") is not None
    return choose_place(choice, device, usable_cores(), gpu and gpu.name, has_slurm)


def _print_survey(
    console: PlainConsole,
    survey: Survey,
    schedules: Sequence[Schedule],
    place: JobPlace,
    jobs: int,
    asked: Collection[int],
) -> None:
    """Print the tables; for an unfinished study also its resources and the estimates' basis."""
    console.print(plan_text.parts_table(survey))
    if survey.is_finished:
        return
    console.print(plan_text.wall_table(schedules, jobs, place, survey.device, asked))
    for line in [*plan_text.resource_lines(survey), *plan_text.survey_notes(survey, place)]:
        console.print(line, soft_wrap=True)


def _finished_remark(survey: Survey, results: Path) -> str:
    """Return a line on whether the report of a finished study can compare it with a plan."""
    study = survey.expansion.study
    stored = read_plan(plan_path(results, study))
    if stored is None or stored.expansion != expansion_digest(survey.expansion):
        return "Nothing is left to train. No plan of these runs was stored before they finished."
    return (
        f"Nothing is left to train. The report compares the plan of {stored.made_at} with the "
        f"measured times: skd-report {study}"
    )


def _store_plan(plan: StudyPlan, results: Path, renew: bool) -> str:
    """Store a plan in the results folder if possible; return a line on which plan is stored."""
    path = plan_path(results, plan.study)
    if not results.is_dir():
        return f"this plan is not stored: there is no folder {results} for {path}"
    try:
        stored = save_plan(plan, results, renew)
    except OSError as error:
        if renew:
            raise
        return f"this plan is not stored in {path}: {error.strerror}"
    return f"plan of {stored.made_at}, when {stored.done} trainings were finished: {path}"


def _print_proposal(console: PlainConsole, proposal: Proposal, study: str, hours: float) -> None:
    budget = plan_text.format_hours(3600 * hours)
    if proposal.smallest is not None:
        console.print(
            f"\nNothing fits {budget}: one pair with one seed takes "
            f"{plan_text.format_hours(proposal.smallest)} at least."
        )
        return
    if not proposal.pairs:
        console.print("\nNothing is left to run.")
        return
    needed = plan_text.format_hours(proposal.seconds)
    console.print(f"\nWithin {budget}, run first ({needed}):")
    pairs = read_sheet(find_sheet(study)).pairs
    for line in proposal_sheet_lines(proposal, pairs):
        console.print(line, soft_wrap=True)
