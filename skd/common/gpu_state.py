"""What NVIDIA's driver says of the GPU that this process was given. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class GpuState:
    """One look at a GPU."""

    memory_bytes: int
    free_bytes: int
    utilisation: float | None  # % of the driver's last period that a kernel ran
    driver: str
    name: str  # as records have it


def gpu_state() -> GpuState | None:
    """Return the state of the first GPU that CUDA may use here; none where there is none."""
    try:
        with _handle() as handle:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            return GpuState(
                memory_bytes=memory.total,
                free_bytes=memory.free,
                utilisation=_utilisation(handle),
                driver=pynvml.nvmlSystemGetDriverVersion(),
                name=pynvml.nvmlDeviceGetName(handle),
            )
    except pynvml.NVMLError:
        return None


def _utilisation(handle: object) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:  # a slice of a GPU does not tell
        return None


@contextlib.contextmanager
def _handle() -> Iterator[object]:
    pynvml.nvmlInit()
    try:
        # SLURM's choice, as CUDA reads it: a number, or a UUID (of a GPU or of a slice of one).
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if first.isdigit():
            yield pynvml.nvmlDeviceGetHandleByIndex(int(first))
        else:
            yield pynvml.nvmlDeviceGetHandleByUUID(first)
    finally:
        pynvml.nvmlShutdown()
