"""A survey as tables and text. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from skd.planning.budget_proposal import Proposal
from skd.planning.estimates import Estimate
from skd.planning.job_graph import STARTUP_SECONDS, PlannedJob
from skd.planning.simulate import Schedule
from skd.planning.stored_plan import StudyPlan
from skd.planning.survey import Survey, SurveyRow

PHOTOS_PER_CORE_SECOND = 700  # decoded photos of 500 × 375 pixels, measured (docs/data.md)


def format_hours(seconds: float) -> str:
    """Return seconds as hours: three digits below 100 hours, whole hours above."""
    value = seconds / 3600
    return f"{value:,.0f} h" if value >= 100 else f"{value:.3g} h"


def parts_table(survey: Survey) -> Table:
    """Return the table of finished and unfinished runs by teachers, method and pair."""
    title = f"{survey.expansion.study}: {survey.expansion.title}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    for name in ("runs", "done", "left", "device-hours left"):
        table.add_column(name, justify="right")
    table.add_column("estimates")
    for parts in survey.parts().values():
        for part in parts:
            table.add_row(*_cells(part))
        table.add_section()
    return table


def wall_table(schedules: Sequence[Schedule], jobs: int) -> Table:
    """Return the table of the time to finish the study, by the number of devices."""
    title = f"What is left, in {jobs} jobs including the report"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("devices", "time", "device-hours", "jobs", "utilisation"):
        table.add_column(name, justify="right")
    for schedule in schedules:
        table.add_row(
            str(schedule.devices),
            format_hours(schedule.wall_seconds),
            format_hours(schedule.device_seconds),
            str(jobs),
            f"{100 * schedule.utilisation:.0f} %",
        )
    return table


def resource_lines(survey: Survey) -> list[str]:
    """Return lines on disk and memory."""
    estimates = [*_left(survey)]
    if not estimates:
        return ["Nothing is left to train."]
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


def survey_notes(survey: Survey) -> list[str]:
    """Return lines on the basis of the estimates."""
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
    lines.append(
        f"assumed: {STARTUP_SECONDS:g} s to start a job, no queue; runs per device: "
        f"{survey.side_by_side or 'as many as fit'}; an unfinished run counts as not started. "
        "See docs/planning.md"
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
    left = format_hours(part.seconds_left) if part.left else ""
    return (part.name, str(part.trainings), str(done or ""), str(part.left or ""), left, sources)


def _left(survey: Survey) -> list[tuple[str, Estimate, int]]:
    """Return name, estimate and number of all unfinished trainings."""
    teachers = [(f"teacher {n}", survey.teachers[n], 1) for n in sorted(survey.teachers_left)]
    left = [(key, survey.cells[key], len(seeds)) for key, seeds in survey.seeds_left.items()]
    return [*teachers, *(item for item in left if item[2])]


def _bytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
