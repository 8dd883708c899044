"""Reference devices, and the device that a plan is made for. Imports no torch.

Times that finished runs measured on a device replace these constants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from skd.common.errors import UnknownNameError

GIB = 2**30
# The default of `--device-model`.
DEFAULT_DEVICE_MODEL = "a100"


@dataclass(frozen=True)
class DeviceModel:
    """The constants of a device.

    Attributes:
        name: the device's name for `--device-model`.
        rate: effective multiply-adds per second, on a CPU those of one thread. They are below the
            peak: the networks are small, and normalisations and activations are included.
        launch_seconds: seconds to launch one layer's forward or backward kernels in a compiled
            step with a CUDA graph, with the elementwise operations around the layer; they do not
            depend on the layer's size. 0 on a CPU.
        lane_launch_seconds: the launch seconds of each lane, as a share of the time of a device
            that trains as many lanes as help.
        memory_bytes: the device's memory; 0 if it uses the machine's.
        fitted_to: the measurements to which the constants were fitted; empty if they are assumed.
    """

    name: str
    rate: float
    launch_seconds: float
    lane_launch_seconds: float
    memory_bytes: int
    fitted_to: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether the device is the processor itself."""
        return not self.memory_bytes

    @property
    def basis(self) -> str:
        """The origin of the constants as text."""
        return f"fitted to measurements of {self.fitted_to}" if self.fitted_to else "assumed"


H200_CONDITIONS = (
    "one H200, PyTorch 2.11, CUDA 13, CIFAR-100, batch 64, TF32, deterministic, compiled, recorded"
)
# The constants of the H200 and the CPU are fitted: tests/planning/test_slowdown.py and
# test_estimates.py have the measurements and the factors. The H100 is the same chip with
# slower memory. The constants of the other GPUs are earlier guesses, corrected by the error of the
# guesses for the H200. A launch in lanes takes three eighths of a launch alone, as on the H200.
DEVICE_MODELS = {
    model.name: model
    for model in (
        DeviceModel("a100", 8e12, 14e-6, 5.25e-6, 40 * GIB),
        DeviceModel("h100", 15e12, 12e-6, 4.5e-6, 80 * GIB),
        DeviceModel("h200", 17e12, 12e-6, 4.5e-6, 141 * GIB, fitted_to=H200_CONDITIONS),
        DeviceModel("v100", 4e12, 18e-6, 6.75e-6, 16 * GIB),
        DeviceModel("rtx3090", 4e12, 16e-6, 6e-6, 24 * GIB),
        DeviceModel("cpu", 12e9, 0.0, 0.0, 0, fitted_to="four steps on one thread of an AMD EPYC"),
    )
}


@dataclass(frozen=True)
class PlannedDevice:
    """The device that a plan is made for.

    Attributes:
        name: the device's name in records, or the model's name if nothing was measured.
        model: the device's constants.
        threads: the number of threads of a CPU; 1 for a GPU.
        scale: the median of measured over modelled seconds per step; ``None`` if nothing was
            measured.
        processes: the number of devices that train each run together.
        accumulate: the number of parts into which each process divides its images of a batch.
    """

    name: str
    model: DeviceModel
    threads: int = 1
    scale: float | None = None
    processes: int = 1
    accumulate: int = 1

    @property
    def parts(self) -> int:
        """The number of parts of a batch over all processes."""
        return self.processes * self.accumulate

    @property
    def rate(self) -> float:
        """Effective multiply-adds per second."""
        return self.model.rate * self.threads


def assumed_for_photos(model: DeviceModel) -> DeviceModel:
    """Return a device's constants for photos: the same values, marked as assumed."""
    return replace(model, fitted_to="")


def device_model(name: str) -> DeviceModel:
    """Return a reference device.

    Raises:
        UnknownNameError: there is no such device; names the allowed ones.
    """
    if name not in DEVICE_MODELS:
        raise UnknownNameError("device model", name, DEVICE_MODELS)
    return DEVICE_MODELS[name]


def device_model_of(recorded: str, on_cpu: bool) -> DeviceModel:
    """Return the reference device for a name in records: a100 for 'NVIDIA A100-SXM4-40GB'.

    Only whole words count: a GH200 is not an h200. For a slice of a GPU (MIG) and an unknown GPU,
    return the default, whose constants are assumed.
    """
    if on_cpu:
        return DEVICE_MODELS["cpu"]
    words = re.split("[^a-z0-9]+", recorded.lower())
    candidates = {*words, *map("".join, pairwise(words))}  # 'RTX 3090' is rtx3090
    models = [name for name in DEVICE_MODELS if name in candidates]
    return DEVICE_MODELS[models[0] if models and "mig" not in words else DEFAULT_DEVICE_MODEL]


def median_scale(ratios: list[float]) -> float | None:
    """Return the median of measured over modelled seconds; ``None`` for an empty list."""
    return median(ratios) if ratios else None
