"""A study's graph as jobs: teachers, bundles of cells, the report. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skd.planning.model import Estimate
from skd.study import Cell, Expansion

STARTUP_SECONDS = 60.0  # of a job: waiting for its node, environment, imports, data
REPORT = "report"
NAME_LENGTH = 40


@dataclass(frozen=True)
class Job:
    """One job of a cluster.

    Attributes:
        name: unique among a study's jobs.
        seconds: on its device, start-up included. The report needs no device and takes none.
        needs: names of jobs that come first.
        parts: what it makes: a teacher's name, or keys of cells.
    """

    name: str
    seconds: float
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


def shared_seconds(estimate: Estimate, runs: int, side_by_side: int = 1) -> float:
    """Return the seconds of like runs that share a device, so many at a time.

    k runs at once take as long as one while the device has room, and beyond that as long as their
    work: max(1, k · utilisation) times.
    """
    if side_by_side < 1:
        raise ValueError(f"side by side: at least 1 run, not {side_by_side}")
    rounds, rest = divmod(runs, side_by_side)
    together = [(side_by_side, rounds), (rest, 1 if rest else 0)]
    return estimate.seconds * sum(
        times * max(1.0, count * estimate.utilisation) for count, times in together
    )


def bundles(
    expansion: Expansion,
    seconds_of_cell: Mapping[str, float],
    target_seconds: float,
    cells_per_job: int | None = None,
) -> dict[str, str]:
    """Return which cells are trained in one job: the job's name by the cell's key.

    Consecutive cells of one pair, in the study's order, are put together until their sum would
    exceed the target; a longer cell is alone. Names are of letters, digits and _, and unique.

    Args:
        expansion: the study.
        seconds_of_cell: by the cell's key; a cell that is not named is in no job.
        target_seconds: of a job.
        cells_per_job: exactly so many cells a job (a pair's last job: at most), whatever they take.

    Raises:
        ValueError: no cell or no time fits a job.
    """
    if cells_per_job is not None and cells_per_job < 1:
        raise ValueError(f"cells per job: at least 1, not {cells_per_job}")
    if target_seconds <= 0:
        raise ValueError(f"seconds per job: more than 0, not {target_seconds:g}")
    by_pair: dict[str, list[str]] = {}
    for cell in expansion.cells:
        if cell.key in seconds_of_cell:
            by_pair.setdefault(cell.pair, []).append(cell.key)
    names: dict[str, str] = {}
    used: dict[str, int] = {}  # by base, which two pairs may have in common
    for pair, keys in by_pair.items():
        base = re.sub(r"[^A-Za-z0-9]+", "_", pair)[:NAME_LENGTH]
        for bundle in _bundled(keys, seconds_of_cell, target_seconds, cells_per_job):
            used[base] = used.get(base, 0) + 1
            names |= dict.fromkeys(bundle, f"{base}_{used[base]}")
    return names


def study_jobs(
    expansion: Expansion,
    teacher_seconds: Mapping[str, float],
    cell_seconds: Mapping[str, float],
    bundle_of: Mapping[str, str],
) -> tuple[Job, ...]:
    """Return the jobs of what is left of a study, in an order in which each comes after its needs.

    Args:
        expansion: the study.
        teacher_seconds: of each teacher that is not at hand, by its name.
        cell_seconds: of each cell with runs left, by its key.
        bundle_of: the job of each of these cells, as `bundles` names them.
    """
    jobs = [
        Job(_teacher_job(node.name), STARTUP_SECONDS + teacher_seconds[node.name], (), (node.name,))
        for node in expansion.teachers
        if node.name in teacher_seconds
    ]
    bundled: dict[str, list[Cell]] = {}
    for cell in expansion.cells:
        if cell.key in cell_seconds:
            bundled.setdefault(bundle_of[cell.key], []).append(cell)
    for name, cells in bundled.items():
        seconds = STARTUP_SECONDS + sum(cell_seconds[cell.key] for cell in cells)
        jobs.append(Job(name, seconds, _needs(cells, teacher_seconds), _keys(cells)))
    return (*jobs, Job(REPORT, 0.0, tuple(job.name for job in jobs)))


def _teacher_job(name: str) -> str:
    return f"teacher {name}"  # the space keeps it apart from any bundle's name


def _needs(cells: Iterable[Cell], teachers: Mapping[str, float]) -> tuple[str, ...]:
    names = dict.fromkeys(cell.teacher for cell in cells if cell.teacher in teachers)
    return tuple(_teacher_job(name) for name in names if name is not None)


def _keys(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(cell.key for cell in cells)


def _bundled(
    keys: list[str], seconds: Mapping[str, float], target: float, size: int | None
) -> list[list[str]]:
    if size is not None:
        return [keys[start : start + size] for start in range(0, len(keys), size)]
    found: list[list[str]] = []
    total = 0.0
    for key in keys:
        total += seconds[key]
        if not found or total > target:
            found.append([])
            total = seconds[key]
        found[-1].append(key)
    return found
