"""A survey as tables and text. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from skd.planning.budget_proposal import Proposal
from skd.planning.devices import PlannedDevice
from skd.planning.estimates import Estimate
from skd.planning.job_graph import PlannedJob
from skd.planning.job_place import JobPlace
from skd.planning.simulate import Schedule, shortest_schedules
from skd.planning.stored_plan import StudyPlan
from skd.planning.survey import Survey, SurveyRow

PHOTOS_PER_CORE_SECOND = 700  # decoded photos of 500 × 375 pixels, measured (docs/data.md)


def format_hours(seconds: float) -> str:
    """Return seconds as hours: three digits below 100 hours, whole hours above."""
    value = seconds / 3600
    return f"{value:,.0f} h" if value >= 100 else f"{value:.3g} h"


def format_time(seconds: float) -> str:
    """Return seconds in a suitable unit: s, min or h."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else format_hours(seconds)


def parts_table(survey: Survey) -> Table:
    """Return the table of finished and unfinished runs by teachers, method and pair."""
    title = f"{survey.expansion.study}: {survey.expansion.title}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    names = ("runs", "done") if survey.is_finished else ("runs", "done", "left", "device time left")
    for name in names:
        table.add_column(name, justify="right")
    if not survey.is_finished:
        table.add_column("estimates")
    for parts in survey.parts().values():
        for part in parts:
            table.add_row(*_cells(part)[: len(table.columns)])
        table.add_section()
    return table


def wall_table(
    schedules: Sequence[Schedule],
    jobs: int,
    place: JobPlace,
    device: PlannedDevice,
    asked: Collection[int] = (),
) -> Group:
    """Return the table of the time to finish the study, by the number of devices.

    Numbers of devices that save no time are left out.

    Args:
        schedules: the simulated schedules.
        jobs: the number of jobs, with the report.
        place: where the jobs run.
        device: the planned device. Devices of this machine are counted in cores on a CPU.
        asked: numbers of devices that the user named, which are always shown.
    """
    where = "on this machine" if place.is_local else "on a cluster"
    title = f"Time to finish what is left {where}, {jobs} jobs with the report:"
    in_cores = place.is_local and device.model.is_cpu
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("cores" if in_cores else "devices", "time", "utilisation"):
        table.add_column(name, justify="right")
    shown = {schedule.devices for schedule in shortest_schedules(schedules)}
    for schedule in schedules:
        if schedule.devices in shown or schedule.devices in asked:
            table.add_row(
                f"{schedule.devices * (device.threads if in_cores else 1):,}",
                format_time(schedule.wall_seconds),
                f"{100 * schedule.utilisation:.0f} %",
            )
    return Group(Text(title, style="italic"), table)


def resource_lines(survey: Survey) -> list[str]:
    """Return lines on disk and memory."""
    estimates = [*_left(survey)]
    if not estimates:
        return []
    results = sum(count * estimate.disk_bytes for _, estimate, count in estimates)
    checkpoints = max(estimate.checkpoint_bytes for _, estimate, _ in estimates)
    lines = [
        f"disk: {_bytes(results)} more in the end; up to {_bytes(checkpoints)} per run in progress"
    ]
    stored = sum(plan.bytes for name, plan in survey.views.items() if name in survey.views_left)
    if stored:
        lines.append(f"teacher views: {_bytes(stored)} more on disk, for all methods and seeds")
    for kind in ("device", "host"):
        name, largest, _ = max(estimates, key=lambda item: getattr(item[1], f"{kind}_bytes"))
        if size := getattr(largest, f"{kind}_bytes"):
            lines.append(f"{kind} memory: up to {_bytes(size)} per run ({name})")
    return lines


def survey_notes(survey: Survey, place: JobPlace) -> list[str]:
    """Return lines on the basis of the estimates.

    Args:
        survey: the estimates.
        place: where the jobs run.
    """
    device, model = survey.device, survey.device.model
    if device.name == model.name:
        lines = [f"device: {device.name}, from its constants; no run was measured on it"]
    elif device.scale is None:
        lines = [f"device: {device.name}, from the constants of {model.name}"]
    else:
        lines = [
            f"device: {device.name}; runs that were not measured are modelled as on {model.name}, "
            f"times {device.scale:.2g} (the median of measured over modelled)"
        ]
    lines.append(f"constants of {model.name}: {model.basis}")
    here, other = ("on this machine", "cluster") if place.is_local else ("on a cluster", "local")
    queue = "" if place.is_local else ", without a queue"
    lines.append(
        f"jobs: {here} (otherwise: --jobs {other}); each takes {place.startup_seconds:g} s to "
        f"start{queue}"
    )
    lines.append(
        f"assumed: runs per device: {survey.side_by_side or 'as many as fit'}; an unfinished run "
        "counts as not started. See docs/planning.md"
    )
    lines += _data_lines(survey)
    memory = model.memory_bytes
    largest = max((estimate.device_bytes for _, estimate, _ in _left(survey)), default=0)
    runs = survey.side_by_side or 1
    if memory and runs * largest > memory:
        lines.append(
            f"WARNING: {runs} times {_bytes(largest)} is more than the "
            f"{_bytes(memory)} of {model.name}"
        )
    return lines


def _data_lines(survey: Survey) -> list[str]:
    """Return lines on divided batches and on the cores that decode photos."""
    device, lines = survey.device, []
    if device.parts > 1:
        lines.append(
            f"each run on {device.processes} devices, each of which computes its images of a batch "
            f"in {device.accumulate} part(s); device memory is that of one device"
        )
    if survey.expansion.images.photos:
        cells = survey.expansion.cells
        speeds = [
            cell.spec.recipe.batch_size / survey.cells[cell.key].seconds_per_step for cell in cells
        ]
        cores = max(speeds) / PHOTOS_PER_CORE_SECOND
        lines.append(
            f"photos: each device needs up to {max(speeds):,.0f} decoded images/s, about "
            f"{cores:.1f} cores at {PHOTOS_PER_CORE_SECOND} per second each (docs/data.md)"
        )
    return lines


def plan_data(
    survey: Survey,
    schedules: Sequence[Schedule],
    jobs: Sequence[PlannedJob],
    plan: StudyPlan,
    proposal: Proposal | None,
) -> dict[str, Any]:
    """Return the contents of all tables as plain data."""
    return {
        "plan": plan.model_dump(mode="json"),
        "parts": {name: [asdict(part) for part in parts] for name, parts in survey.parts().items()},
        "teachers": _as_dicts(survey.teachers),
        "cells": _as_dicts(survey.cells),
        "seeds_left": {key: list(seeds) for key, seeds in survey.seeds_left.items()},
        "jobs": [asdict(job) for job in jobs],
        "schedules": [
            {
                "devices": schedule.devices,
                "wall_seconds": schedule.wall_seconds,
                "device_seconds": schedule.device_seconds,
                "utilisation": schedule.utilisation,
            }
            for schedule in schedules
        ],
        "proposal": asdict(proposal) if proposal else None,
    }


def _as_dicts(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def _cells(part: SurveyRow) -> tuple[str, ...]:
    done = part.trainings - part.left
    sources = ", ".join(f"{count} {source}" for source, count in part.sources.items())
    left = format_time(part.seconds_left) if part.left else ""
    return (part.name, str(part.trainings), str(done or ""), str(part.left or ""), left, sources)


def _left(survey: Survey) -> list[tuple[str, Estimate, int]]:
    """Return name, estimate and number of all unfinished trainings."""
    teachers = [(f"teacher {n}", survey.teachers[n], 1) for n in sorted(survey.teachers_left)]
    left = [(key, survey.cells[key], len(seeds)) for key, seeds in survey.seeds_left.items()]
    return [*teachers, *(item for item in left if item[2])]


def _bytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
