"""The time, memory and cores that a job requests from SLURM. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skd.planning.batches import CellBatch
from skd.planning.estimates import DECODING_CORES, Estimate
from skd.planning.job_graph import STARTUP_SECONDS, shared_seconds
from skd.planning.side_by_side import lane_cores
from skd.planning.survey import Survey

# A job that reaches its limit saves and resumes later: the margin need not cover the worst case.
TIME_MARGIN = 1.5
MIN_MINUTES = 10
# Host memory of each further run that a process trains on a GPU; assumed.
LANE_HOST_BYTES = 500 * 2**20
# Two Snakemake processes around the command, and the process that watches the trainings.
OVERHEAD_BYTES = 1_000 * 2**20


@dataclass(frozen=True)
class JobResources:
    """The resources of a job in addition to its GPU."""

    minutes: int
    memory_mb: int  # host memory in units of 10^6 bytes, as in Snakemake
    cores: int


def batch_job_resources(
    survey: Survey, batch: CellBatch, attempt: int, longest: int | None
) -> JobResources:
    """Return the resources of the job that trains a batch.

    Args:
        survey: the estimates of the study.
        batch: the cells of the job.
        attempt: the number of the job's attempt, from 1; it multiplies time and memory.
        longest: the largest allowed number of minutes, or ``None``.
    """
    keys = [f"{batch.pair}/{method}" for method in batch.methods]
    seconds = sum(survey.whole_seconds[key] for key in keys)
    processes = survey.device.processes
    count = survey.runs_side_by_side_of(*keys) if processes == 1 else processes
    host = max(survey.cells[key].host_bytes for key in keys)
    photos = survey.expansion.images.photos
    if processes == 1 and not survey.device.model.is_cpu:  # lanes of one process
        cores = count * DECODING_CORES if photos else lane_cores(count)
        memory = count * host if photos else host + (count - 1) * LANE_HOST_BYTES
        return _resources(seconds, memory, cores, attempt, longest)
    return _resources(seconds / processes, count * host, count * _cores(survey), attempt, longest)


def teacher_job_resources(
    survey: Survey, name: str, attempt: int, longest: int | None
) -> JobResources:
    """Return the resources of the job that trains a teacher; see `batch_job_resources`."""
    estimate: Estimate = survey.teachers[name]
    imported = survey.expansion.teacher(name).spec.kind == "imported"
    processes = 1 if imported else survey.device.processes
    seconds, host = shared_seconds(estimate, 1) / processes, processes * estimate.host_bytes
    return _resources(seconds, host, processes * _cores(survey), attempt, longest)


def views_job_resources(
    survey: Survey, name: str, attempt: int, longest: int | None
) -> JobResources:
    """Return the resources of the job that stores a teacher's views; see `batch_job_resources`."""
    seconds = survey.views_left.get(name, 0.0)
    return _resources(seconds, survey.teachers[name].host_bytes, 1, attempt, longest)


def _cores(survey: Survey) -> int:
    """Return the cores of one process: several decode photos for a GPU."""
    photos = survey.expansion.images.photos
    return DECODING_CORES if photos and not survey.device.model.is_cpu else 1


def _resources(
    seconds: float, host: int, cores: int, attempt: int, longest: int | None
) -> JobResources:
    minutes = math.ceil((STARTUP_SECONDS + TIME_MARGIN * seconds) / 60)
    wanted = attempt * max(MIN_MINUTES, minutes)
    return JobResources(
        minutes=min(wanted, longest) if longest else wanted,
        memory_mb=math.ceil(attempt * (OVERHEAD_BYTES + host) / 1e6),
        cores=cores,
    )
