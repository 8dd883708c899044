"""Memory, load and name of this process's GPU, from NVIDIA's driver. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class GpuState:
    """State of a GPU at one time."""

    memory_bytes: int
    free_bytes: int
    utilisation: float | None  # % of the driver's last sampling period in which a kernel ran
    driver: str
    name: str  # as in records


def gpu_state() -> GpuState | None:
    """Return the state of the first GPU that CUDA may use; ``None`` if there is no GPU."""
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
    except pynvml.NVMLError:  # a slice of a GPU does not report its load
        return None


@contextlib.contextmanager
def _handle() -> Iterator[object]:
    pynvml.nvmlInit()
    try:
        # Set by SLURM: a number, or the UUID of a GPU or of a slice of one.
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if first.isdigit():
            yield pynvml.nvmlDeviceGetHandleByIndex(int(first))
        else:
            yield pynvml.nvmlDeviceGetHandleByUUID(first)
    finally:
        pynvml.nvmlShutdown()
