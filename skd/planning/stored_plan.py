"""A study's plan as it is kept, ``results/<study>/plan.json``, to be compared with what came.

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
from skd.planning.job_graph import PlannedJob
from skd.planning.simulate import DEVICE_COUNTS, Schedule, simulate
from skd.planning.survey import Survey
from skd.study.expansion import Expansion


class PlannedTraining(FrozenModel):
    """What one training was expected to take, alone on its device."""

    seconds: NonNegativeFloat
    source: Literal["measured", "scaled", "model"]


class StudyPlan(FrozenModel):
    """What a study was expected to take when it was planned."""

    schema_version: Literal[1] = 1
    study: str
    expansion: str
    made_at: str
    done: NonNegativeInt
    device: str
    device_model: str
    side_by_side: PositiveInt | None  # none: as many as fit
    teachers: dict[str, PlannedTraining]
    cells: dict[str, PlannedTraining]
    wall_seconds: dict[PositiveInt, NonNegativeFloat]


def plan_path(results: Path, study: str) -> Path:
    """Return where a study's plan is kept."""
    return results / study / "plan.json"


def expansion_digest(expansion: Expansion) -> str:
    """Return the hash of a study's teachers and runs: another one is another study."""
    runs = sorted((cell.key, *cell.runs.values()) for cell in expansion.cells)
    return digest([sorted((node.name, node.id) for node in expansion.teachers), runs])


def make_plan(survey: Survey, schedules: list[Schedule]) -> StudyPlan:
    """Return the plan that a survey and its simulated schedules come to, made now."""

    def planned(estimates: dict) -> dict[str, PlannedTraining]:
        return {
            name: PlannedTraining(seconds=found.seconds, source=found.source)
            for name, found in estimates.items()
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
    """Return simulated schedules of jobs on so many devices each; too few for one run: none."""
    each = survey.device.processes
    shorter = [replace(job, seconds=job.seconds / each) for job in jobs]
    found = [(count, simulate(shorter, count // each)) for count in counts if count >= each]
    return [
        replace(schedule, devices=count, device_seconds=each * schedule.device_seconds)
        for count, schedule in found
    ]


def save_plan_before_run(survey: Survey, shape: JobShape, results: Path) -> StudyPlan:
    """Keep a plan of what is about to be run, as `skd plan` does; return the one that is kept."""
    jobs = survey.jobs(shape)
    return save_plan(make_plan(survey, simulate_schedules(survey, jobs, DEVICE_COUNTS)), results)


def save_plan(plan: StudyPlan, results: Path, renew: bool = False) -> StudyPlan:
    """Return the plan that is kept: an earlier one of the same runs, made when fewer were done.

    Otherwise the given one is written. ``renew`` writes it in any case.
    """
    path = plan_path(results, plan.study)
    earlier = None if renew else read_plan(path)
    if earlier and earlier.expansion == plan.expansion and earlier.done < plan.done:
        return earlier
    write_json(path, plan.model_dump(mode="json"))
    return plan


def read_plan(path: Path) -> StudyPlan | None:
    """Return a plan, or none where there is none that can be read."""
    try:
        return StudyPlan.model_validate(read_json(path))
    except (OSError, ValueError):
        return None
