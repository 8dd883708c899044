"""The jobs of a study and their order: teachers, batches of cells, the report. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skd.planning.estimates import Estimate
from skd.planning.slowdown import slowdown
from skd.study.expansion import Cell, Expansion

STARTUP_SECONDS = 60.0  # of a cluster's job: its node, environment, imports and data
REPORT_JOB = "report"


@dataclass(frozen=True)
class PlannedJob:
    """One job of a study.

    Attributes:
        name: the job's name, unique within a study.
        seconds: seconds on its device with start-up; 0 for the report, which needs no device.
        needs: the names of the jobs that must end first.
        parts: what the job trains: a teacher's name, or the keys of cells.
    """

    name: str
    seconds: float
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


def shared_seconds(estimate: Estimate, runs: int, side_by_side: int = 1) -> float:
    """Return the seconds of similar runs, of which up to `side_by_side` share a device."""
    if side_by_side < 1:
        raise ValueError(f"side by side: at least 1 run, not {side_by_side}")
    rounds, rest = divmod(runs, side_by_side)
    groups = [(side_by_side, rounds), (rest, 1 if rest else 0)]
    return estimate.seconds * sum(
        times * slowdown(count, estimate.utilisation) for count, times in groups
    )


def study_jobs(
    expansion: Expansion,
    teacher_seconds: Mapping[str, float],
    cell_seconds: Mapping[str, float],
    batch_of: Mapping[str, str],
    views: Mapping[str, tuple[float, frozenset[str]]] | None = None,
    startup: float = STARTUP_SECONDS,
) -> tuple[PlannedJob, ...]:
    """Return the jobs for the unfinished part of a study, each after the jobs that it needs.

    Args:
        expansion: the study.
        teacher_seconds: the seconds of each missing teacher, by name.
        cell_seconds: the seconds of each cell with unfinished runs, by its key.
        batch_of: the job of each of these cells, by the cell's key.
        views: by the teacher's name, the seconds to store its views and the keys of the cells that
            use them.
        startup: the seconds from a job's start to its first training step.
    """
    views = views or {}
    jobs = [
        PlannedJob(_teacher_job(node.name), startup + teacher_seconds[node.name], (), (node.name,))
        for node in expansion.teachers
        if node.name in teacher_seconds
    ]
    for name, (seconds, _) in views.items():
        needs = (_teacher_job(name),) if name in teacher_seconds else ()
        jobs.append(PlannedJob(_views_job(name), startup + seconds, needs))
    batched: dict[str, list[Cell]] = {}
    for cell in expansion.cells:
        if cell.key in cell_seconds:
            batched.setdefault(batch_of[cell.key], []).append(cell)
    for name, cells in batched.items():
        seconds = startup + sum(cell_seconds[cell.key] for cell in cells)
        jobs.append(PlannedJob(name, seconds, _needs(cells, teacher_seconds, views), _keys(cells)))
    return (*jobs, PlannedJob(REPORT_JOB, 0.0, tuple(job.name for job in jobs)))


def _teacher_job(name: str) -> str:
    return f"teacher {name}"  # the space makes it differ from any batch's path


def _views_job(name: str) -> str:
    return f"views of {name}"


def _needs(
    cells: Iterable[Cell],
    teachers: Mapping[str, float],
    views: Mapping[str, tuple[float, frozenset[str]]],
) -> tuple[str, ...]:
    needed: dict[str, None] = {}
    for cell in cells:
        name = cell.teacher
        if name in views and cell.key in views[name][1]:
            needed[_views_job(name)] = None  # this job needs the teacher's
        elif name in teachers:
            needed[_teacher_job(name)] = None
    return tuple(needed)


def _keys(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(cell.key for cell in cells)
