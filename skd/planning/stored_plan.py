"""A study's plan in ``results/<study>/plan.json``, to compare it with the measurements later.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel, digest
from skd.planning.batches import JobShape
from skd.planning.estimates import Estimate, EstimateSource
from skd.planning.job_graph import PlannedJob
from skd.planning.job_place import CLUSTER, this_machine, usable_cores
from skd.planning.simulate import Schedule, simulate
from skd.planning.survey import Survey
from skd.study.expansion import Expansion


class PlannedTraining(FrozenModel):
    """The estimate of one training alone on its device."""

    seconds: NonNegativeFloat
    source: EstimateSource


class StudyPlan(FrozenModel):
    """The estimates of a study at the time when it was planned."""

    schema_version: Literal[1] = 1
    study: str
    expansion: str
    made_at: str
    done: NonNegativeInt
    device: str
    device_model: str
    side_by_side: PositiveInt | None  # None: as many as fit
    teachers: dict[str, PlannedTraining]
    cells: dict[str, PlannedTraining]
    wall_seconds: dict[PositiveInt, NonNegativeFloat]


def plan_path(results: Path, study: str) -> Path:
    """Return the file of a study's plan."""
    return results / study / "plan.json"


def expansion_digest(expansion: Expansion) -> str:
    """Return the hash of a study's teachers and runs."""
    runs = sorted((cell.key, *cell.runs.values()) for cell in expansion.cells)
    return digest([sorted((node.name, node.id) for node in expansion.teachers), runs])


def make_plan(survey: Survey, schedules: list[Schedule]) -> StudyPlan:
    """Return a plan from a survey and its simulated schedules."""

    def planned(estimates: dict[str, Estimate]) -> dict[str, PlannedTraining]:
        return {
            name: PlannedTraining(seconds=estimate.seconds, source=estimate.source)
            for name, estimate in estimates.items()
        }

    return StudyPlan(
        study=survey.expansion.study,
        expansion=expansion_digest(survey.expansion),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        done=survey.done,
        device=survey.device.name,
        device_model=survey.device.model.name,
        side_by_side=survey.side_by_side,
        teachers=planned(survey.teachers),
        cells=planned(survey.cells),
        wall_seconds={schedule.devices: schedule.wall_seconds for schedule in schedules},
    )


def simulate_schedules(
    survey: Survey, jobs: Sequence[PlannedJob], counts: Iterable[int]
) -> list[Schedule]:
    """Return a simulated schedule for each number of devices that is enough for one run."""
    per_run = survey.device.processes
    # The devices of a run are simulated as one device that is faster.
    faster = [replace(job, seconds=job.seconds / per_run) for job in jobs]
    schedules = {count: simulate(faster, count // per_run) for count in counts if count >= per_run}
    return [
        replace(schedule, devices=count, device_seconds=per_run * schedule.device_seconds)
        for count, schedule in schedules.items()
    ]


def save_plan_before_run(survey: Survey, shape: JobShape, results: Path, local: bool) -> None:
    """Store a plan of the jobs that are about to run, if any.

    Args:
        survey: the state of the study.
        shape: the size of a job.
        results: the results folder.
        local: whether the jobs run on this machine.
    """
    if survey.is_finished:  # a plan made now would compare measurements with themselves
        return
    place = this_machine(survey.device, usable_cores()) if local else CLUSTER
    jobs = survey.jobs(shape, place)
    save_plan(make_plan(survey, simulate_schedules(survey, jobs, place.device_counts)), results)


def save_plan(plan: StudyPlan, results: Path, renew: bool = False) -> StudyPlan:
    """Return the stored plan, after storing the given one if necessary.

    A stored plan of the same runs stays if fewer runs were done when it was made.

    Args:
        plan: the new plan.
        results: the results folder.
        renew: replace the stored plan in any case.
    """
    path = plan_path(results, plan.study)
    earlier = None if renew else read_plan(path)
    if earlier and earlier.expansion == plan.expansion and earlier.done < plan.done:
        return earlier
    write_json(path, plan.model_dump(mode="json"))
    return plan


def read_plan(path: Path) -> StudyPlan | None:
    """Return a stored plan; ``None`` if there is none or it cannot be read."""
    try:
        return StudyPlan.model_validate(read_json(path))
    except (OSError, ValueError):
        return None
