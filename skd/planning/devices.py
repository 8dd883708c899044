"""Reference devices, and which one a plan is made for. Imports no torch.

Every constant here is an assumption, to be replaced by what finished runs measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        photo_rate: likewise of networks on photos, which fill a GPU better.
        launch_seconds: of one layer's forward or backward kernels, replayed from a recorded step,
            whatever their size; with it go the elementwise operations round the layer. 0 on a CPU.
        memory_bytes: of the device; 0 where it is the machine's own.
    """

    name: str
    rate: float
    photo_rate: float
    launch_seconds: float
    memory_bytes: int

    @property
    def is_cpu(self) -> bool:
        """Whether there is no device beside the processor."""
        return not self.memory_bytes


DEVICE_MODELS = {
    model.name: model
    for model in (
        DeviceModel("a100", 3e12, photo_rate=8e12, launch_seconds=7e-6, memory_bytes=40 * GIB),
        DeviceModel("h100", 6e12, photo_rate=14e12, launch_seconds=6e-6, memory_bytes=80 * GIB),
        DeviceModel("h200", 6.5e12, photo_rate=15e12, launch_seconds=6e-6, memory_bytes=141 * GIB),
        DeviceModel("v100", 1.5e12, photo_rate=4e12, launch_seconds=9e-6, memory_bytes=16 * GIB),
        DeviceModel("rtx3090", 1.5e12, photo_rate=4e12, launch_seconds=8e-6, memory_bytes=24 * GIB),
        # Against four measured steps on one thread of an AMD EPYC: tests/test_planning_model.py.
        DeviceModel("cpu", 12e9, photo_rate=12e9, launch_seconds=0.0, memory_bytes=0),
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


def for_photos(model: DeviceModel) -> DeviceModel:
    """Return a device's constants as they are for networks on photos."""
    return replace(model, rate=model.photo_rate)


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
