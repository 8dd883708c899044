"""Reference devices, and which one a plan is made for. Imports no torch.

Every constant here is an assumption, to be replaced by what finished runs measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from skd.errors import UnknownNameError

GIB = 2**30
# Default of `--device-model`.
USUAL = "a100"


@dataclass(frozen=True)
class DeviceModel:
    """A device's constants, all assumed.

    Attributes:
        name: as `--device-model` takes it.
        rate: multiply-adds a second in effect, on a CPU of one thread: what is left of the peak
            at these networks' sizes, normalisations and activations included.
        launch_seconds: of one layer's forward or backward kernels, replayed from a recorded step,
            whatever their size; with it go the elementwise operations round the layer. 0 on a CPU.
        memory_bytes: of the device; 0 where it is the machine's own.
    """

    name: str
    rate: float
    launch_seconds: float
    memory_bytes: int

    @property
    def is_cpu(self) -> bool:
        """Whether there is no device beside the processor."""
        return not self.memory_bytes


DEVICE_MODELS = {
    model.name: model
    for model in (
        DeviceModel("a100", rate=3e12, launch_seconds=7e-6, memory_bytes=40 * GIB),
        DeviceModel("h100", rate=6e12, launch_seconds=6e-6, memory_bytes=80 * GIB),
        DeviceModel("h200", rate=6.5e12, launch_seconds=6e-6, memory_bytes=141 * GIB),
        DeviceModel("v100", rate=1.5e12, launch_seconds=9e-6, memory_bytes=16 * GIB),
        DeviceModel("rtx3090", rate=1.5e12, launch_seconds=8e-6, memory_bytes=24 * GIB),
        # Against four measured steps on one thread of an AMD EPYC: tests/test_planning_model.py.
        DeviceModel("cpu", rate=12e9, launch_seconds=0.0, memory_bytes=0),
    )
}


@dataclass(frozen=True)
class Device:
    """What a plan is made for.

    Attributes:
        name: as records name it, or the model's name where nothing was measured.
        model: its constants.
        threads: of a CPU; 1 elsewhere.
        scale: median of measured over modelled seconds a step; none where nothing was measured.
    """

    name: str
    model: DeviceModel
    threads: int = 1
    scale: float | None = None

    @property
    def rate(self) -> float:
        """Multiply-adds a second in effect."""
        return self.model.rate * self.threads


def device_model(name: str) -> DeviceModel:
    """Return a reference device.

    Raises:
        UnknownNameError: no such device; names the allowed ones.
    """
    if name not in DEVICE_MODELS:
        raise UnknownNameError("device model", name, DEVICE_MODELS)
    return DEVICE_MODELS[name]


def model_of(recorded: str, on_cpu: bool) -> DeviceModel:
    """Return the reference device nearest to a recorded name: 'NVIDIA A100-SXM4' is an a100."""
    plain = recorded.lower().replace(" ", "")
    named = "cpu" if on_cpu else next((name for name in DEVICE_MODELS if name in plain), USUAL)
    return DEVICE_MODELS[named]


def median_scale(ratios: list[float]) -> float | None:
    """Return the median of measured over modelled seconds, or none of none."""
    return median(ratios) if ratios else None
