"""Reference devices, and which one a plan is made for. Imports no torch.

Where finished runs measured a device, their times replace these constants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from skd.common.errors import UnknownNameError

GIB = 2**30
# Default of `--device-model`.
DEFAULT_DEVICE_MODEL = "a100"


@dataclass(frozen=True)
class DeviceModel:
    """A device's constants.

    Attributes:
        name: as `--device-model` takes it.
        rate: multiply-adds a second in effect, on a CPU of one thread: what is left of the peak
            at these networks' sizes, normalisations and activations included.
        launch_seconds: of one layer's forward or backward kernels in a compiled and recorded step,
            whatever their size; with it go the elementwise operations round the layer. 0 on a CPU.
        lane_launch_seconds: the same of each lane, as a share of the time of a device that is full
            of them.
        memory_bytes: of the device; 0 where it is the machine's own.
        fitted_to: the measurements that the constants were fitted to; empty where they are
            assumed.
    """

    name: str
    rate: float
    launch_seconds: float
    lane_launch_seconds: float
    memory_bytes: int
    fitted_to: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether there is no device beside the processor."""
        return not self.memory_bytes

    @property
    def basis(self) -> str:
        """What the constants rest on, in words."""
        return f"fitted to measurements of {self.fitted_to}" if self.fitted_to else "assumed"


H200_CONDITIONS = (
    "one H200, PyTorch 2.11, CUDA 13, CIFAR-100, batch 64, TF32, deterministic, compiled, recorded"
)
# The H200's and the CPU's are fitted: tests/planning/test_slowdown.py and test_estimates.py have
# the measurements and the factors. The H100 is the same chip with slower memory; the other GPUs'
# are earlier guesses, times what the H200's guesses were off by, and a launch in lanes takes three
# eighths of one alone, as on the H200.
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
    """What a plan is made for.

    Attributes:
        name: as records name it, or the model's name where nothing was measured.
        model: its constants.
        threads: of a CPU; 1 elsewhere.
        scale: median of measured over modelled seconds a step; none where nothing was measured.
        processes: such devices that train each run together.
        accumulate: parts in which each of them sees its images of a batch.
    """

    name: str
    model: DeviceModel
    threads: int = 1
    scale: float | None = None
    processes: int = 1
    accumulate: int = 1

    @property
    def parts(self) -> int:
        """Parts in which a batch is seen, over all processes."""
        return self.processes * self.accumulate

    @property
    def rate(self) -> float:
        """Multiply-adds a second in effect."""
        return self.model.rate * self.threads


def assumed_for_photos(model: DeviceModel) -> DeviceModel:
    """Return a device's constants for networks on photos: the same, but assumed."""
    return replace(model, fitted_to="")


def device_model(name: str) -> DeviceModel:
    """Return a reference device.

    Raises:
        UnknownNameError: no such device; names the allowed ones.
    """
    if name not in DEVICE_MODELS:
        raise UnknownNameError("device model", name, DEVICE_MODELS)
    return DEVICE_MODELS[name]


def device_model_of(recorded: str, on_cpu: bool) -> DeviceModel:
    """Return the reference device of a recorded name: 'NVIDIA A100-SXM4-40GB' is an a100.

    Whole words count: a GH200 is no h200. A slice of a GPU (MIG) and a GPU that is not known are
    taken for the default, whose constants are assumed.
    """
    if on_cpu:
        return DEVICE_MODELS["cpu"]
    words = re.split("[^a-z0-9]+", recorded.lower())
    found = {*words, *map("".join, pairwise(words))}  # 'RTX 3090' is one
    named = [name for name in DEVICE_MODELS if name in found]
    return DEVICE_MODELS[named[0] if named and "mig" not in words else DEFAULT_DEVICE_MODEL]


def median_scale(ratios: list[float]) -> float | None:
    """Return the median of measured over modelled seconds, or none of none."""
    return median(ratios) if ratios else None
