"""Where a study's jobs run: on this machine, or on the nodes of a cluster. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from skd.planning.devices import PlannedDevice, device_model_of
from skd.planning.job_graph import STARTUP_SECONDS
from skd.planning.simulate import DEVICE_COUNTS

JobsChoice = Literal["auto", "local", "cluster"]
# Of a job on this machine: imports and data. Measured: the demo's jobs on two cores of an AMD EPYC
# took 6.5 to 10 s longer than their trainings.
LOCAL_STARTUP_SECONDS = 8.0


@dataclass(frozen=True)
class JobPlace:
    """Where jobs run.

    Attributes:
        name: this machine (local) or a cluster.
        startup_seconds: seconds from a job's start to its first training step.
        device_counts: the numbers of devices for which a plan is simulated.
    """

    name: Literal["local", "cluster"]
    startup_seconds: float
    device_counts: tuple[int, ...]

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""
        return self.name == "local"


CLUSTER = JobPlace("cluster", STARTUP_SECONDS, DEVICE_COUNTS)


def this_machine(device: PlannedDevice, cores: int) -> JobPlace:
    """Return this machine as a place for jobs.

    Args:
        device: the planned device. Each training has its own cores of a CPU, and all share a GPU.
        cores: the number of cores that jobs may use.
    """
    most = cores // device.threads if device.model.is_cpu else 1
    most = max(most, device.processes)
    counts = (*(count for count in DEVICE_COUNTS if count < most), most)
    return JobPlace("local", LOCAL_STARTUP_SECONDS, counts)


def choose_place(
    choice: JobsChoice, device: PlannedDevice, cores: int, gpu: str | None, has_slurm: bool
) -> JobPlace:
    """Return where jobs run.

    Args:
        choice: the user's choice. auto: on this machine if it has the planned device and no SLURM.
        device: the planned device.
        cores: the number of cores that jobs may use on this machine.
        gpu: the name of this machine's GPU as in records, or ``None``.
        has_slurm: whether SLURM's commands are installed.
    """
    if choice == "auto":
        fits = cores >= device.threads if device.model.is_cpu else _is_device(gpu, device)
        local = fits and not has_slurm
        choice = "local" if local else "cluster"
    return this_machine(device, cores) if choice == "local" else CLUSTER


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_device(gpu: str | None, device: PlannedDevice) -> bool:
    return gpu is not None and device.name in (gpu, device_model_of(gpu, on_cpu=False).name)
