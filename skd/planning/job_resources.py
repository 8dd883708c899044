"""What a job asks SLURM for, from what its trainings take. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skd.planning.batches import CellBatch
from skd.planning.estimates import DECODING_CORES, Estimate
from skd.planning.job_graph import STARTUP_SECONDS, shared_seconds
from skd.planning.side_by_side import lane_cores
from skd.planning.survey import Survey

# A job that ends at its limit saves and goes on later, so the margin need not cover the worst.
TIME_MARGIN = 1.5
MIN_MINUTES = 10
# Of each further run that a process trains on a GPU; assumed.
LANE_HOST_BYTES = 500 * 2**20
# Two Snakemakes round the command, and the process that watches the trainings.
OVERHEAD_BYTES = 1_000 * 2**20


@dataclass(frozen=True)
class JobResources:
    """What a job asks for, beside its GPU."""

    minutes: int
    memory_mb: int  # of the host, in MB of a million bytes, as Snakemake counts
    cores: int


def batch_job_resources(
    survey: Survey, batch: CellBatch, attempt: int, longest: int | None
) -> JobResources:
    """Return what the job of a batch asks for.

    Args:
        survey: the study, estimated.
        batch: its cells.
        attempt: the job's, from 1: each asks for that many times the time and the memory.
        longest: the most minutes that may be asked for, or none.
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
        return _request(seconds, memory, cores, attempt, longest)
    return _request(seconds / processes, count * host, count * _cores(survey), attempt, longest)


def teacher_job_resources(
    survey: Survey, name: str, attempt: int, longest: int | None
) -> JobResources:
    """Return what the job of a teacher asks for; as `batch_job_resources`."""
    estimate: Estimate = survey.teachers[name]
    imported = survey.expansion.teacher(name).spec.kind == "imported"
    processes = 1 if imported else survey.device.processes
    seconds, host = shared_seconds(estimate, 1) / processes, processes * estimate.host_bytes
    return _request(seconds, host, processes * _cores(survey), attempt, longest)


def views_job_resources(
    survey: Survey, name: str, attempt: int, longest: int | None
) -> JobResources:
    """Return what the job that stores a teacher's views asks for; as `batch_job_resources`."""
    seconds = survey.views_left.get(name, 0.0)
    return _request(seconds, survey.teachers[name].host_bytes, 1, attempt, longest)


def _cores(survey: Survey) -> int:
    """Return the cores of one process: a GPU is fed with photos by several."""
    photos = survey.expansion.images.photos
    return DECODING_CORES if photos and not survey.device.model.is_cpu else 1


def _request(
    seconds: float, host: int, cores: int, attempt: int, longest: int | None
) -> JobResources:
    minutes = math.ceil((STARTUP_SECONDS + TIME_MARGIN * seconds) / 60)
    wanted = attempt * max(MIN_MINUTES, minutes)
    return JobResources(
        minutes=min(wanted, longest) if longest else wanted,
        memory_mb=math.ceil(attempt * (OVERHEAD_BYTES + host) / 1e6),
        cores=cores,
    )
