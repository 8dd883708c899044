"""What one training will take: seconds, memory, disk. Imports no torch.

The model, in words: docs/planning.md. Where finished runs have measured the same, they are right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from skd.errors import UnknownNameError
from skd.planning.devices import (
    USUAL,
    Device,
    DeviceModel,
    device_model,
    for_photos,
    median_scale,
    model_of,
)
from skd.planning.teacher_views import ViewsPlan
from skd.planning.timings import Timing, Timings, mean_seconds_per_epoch
from skd.spec import ImportedTeacher, Recipe, RunSpec
from skd.study import Cell, Expansion, ExtraFacts, ImageFacts, NetworkFacts, TeacherNode

FORWARD_AND_BACKWARD = 3  # the backward pass costs about two forward ones
STEP_LAUNCHES = 50  # optimiser, losses, views and metrics of one step
EVALUATION_BATCH = 1000  # as on a GPU in skd.training.evaluation
FLOAT_BYTES, HALF_BYTES = 4, 2
MIB = 2**20
CONTEXT_BYTES = 500 * MIB  # of a process on a GPU: context, kernels, workspaces
GPU_HOST_BYTES = 3000 * MIB  # of a process that uses a GPU, on the host
LOADER_BYTES = 400 * MIB  # of a process that decodes photos, and its batches
DECODING_CORES = 8  # beside each GPU that trains on photos; docs/data.md has what one decodes
CPU_HOST_BYTES = 600 * MIB  # of one that does not: Python and torch
MEASURED_MARGIN = 1.2  # on a measured peak
RECORD_BYTES, EPOCH_BYTES = 8_000, 900  # a record, and each epoch in it
GENERATIONS = 2  # of checkpoints
LEAST_UTILISATION = 0.05

Source = Literal["measured", "scaled", "model"]


@dataclass(frozen=True)
class Estimate:
    """What one training takes.

    Attributes:
        seconds_per_step: of training.
        seconds: in all, evaluations included, alone on its device.
        device_bytes: peak on the device; 0 on a CPU.
        host_bytes: peak of the process on the host.
        disk_bytes: what stays: weights, test logits, record.
        checkpoint_bytes: on disk while it is under way, and then no more.
        utilisation: share of the device that it keeps busy, in (0, 1].
        source: the same was measured; the model, scaled by what else was measured; the model.
    """

    seconds_per_step: float
    seconds: float
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    checkpoint_bytes: int
    utilisation: float
    source: Source

    @property
    def known_utilisation(self) -> float:
        """The utilisation where it was measured, else 1: no device is shared on a guess."""
        return self.utilisation if self.source == "measured" else 1.0


@dataclass(frozen=True)
class Networks:
    """What a step has to compute with."""

    student: NetworkFacts
    teacher: NetworkFacts | None = None
    extra: ExtraFacts = field(default_factory=ExtraFacts)


def estimate_run(
    expansion: Expansion,
    cell: Cell,
    timings: Timings,
    device: Device,
    stored_teacher: bool = False,
) -> Estimate:
    """Return what any one of a cell's runs takes, with a live or a stored teacher."""
    return _estimate(expansion, cell.spec, cell.extra, timings, device, stored_teacher)


def views_seconds(expansion: Expansion, plan: ViewsPlan, device: Device) -> float:
    """Return what storing a teacher's views takes: forward passes on all views of all images."""
    network = expansion.networks[expansion.teacher(plan.teacher).spec.network]
    images = expansion.images.train_images * plan.view_epochs
    return (device.scale or 1.0) * images * network.multiply_adds / device.rate


def estimate_teacher(
    expansion: Expansion, node: TeacherNode, timings: Timings, device: Device
) -> Estimate:
    """Return what a teacher takes: trained here, or only evaluated where it is imported."""
    if not isinstance(node.spec, ImportedTeacher):
        return _estimate(expansion, node.spec.run, ExtraFacts(), timings, device)
    networks = Networks(expansion.networks[node.spec.network])
    recipe = Recipe(epochs=1, milestones=())
    modelled = model_training(networks, recipe, expansion.images, device)
    seconds = evaluation_seconds(networks.student, expansion.images, device)
    return replace(modelled, seconds=seconds * (device.scale or 1), checkpoint_bytes=0)


def choose_device(
    expansion: Expansion, timings: Timings, name: str | None = None, model: str | None = None
) -> Device:
    """Return the device to plan for.

    Args:
        expansion: the study.
        timings: of the store.
        name: as records name it; by default the device with the most timings of the study's data
            set (among those that are of ``model``, if given), and without any the model alone.
        model: a reference device's name.

    Raises:
        UnknownNameError: no timing has that device, or there is no such reference device.
    """
    wanted = _constants(expansion, device_model(model)) if model else None
    found = {
        recorded: _constants(
            expansion, model_of(recorded, on_cpu=timings.threads(recorded) is not None)
        )
        for recorded in timings.devices()
    }
    if name is None:
        usual = timings.devices(expansion.dataset.name)
        name = next((known for known in usual if wanted in (None, found[known])), None)
        if name is None:
            constants = wanted or _constants(expansion, device_model(USUAL))
            return Device(constants.name, constants)
    elif name not in found:
        raise UnknownNameError("device", name, found)
    device = Device(name, wanted or found[name], timings.threads(name) or 1)
    return replace(device, scale=median_scale([*_ratios(expansion, timings, device)]))


def usual_device(expansion: Expansion, timings: Timings, expected: str) -> Device:
    """Return the device that most was measured on; before anything was, a reference device.

    Args:
        expansion: the study.
        timings: of the store.
        expected: a reference device's name. Timings of a CPU tell nothing of a GPU, nor the
            other way round.

    Raises:
        UnknownNameError: there is no such reference device.
    """
    on_cpu = device_model(expected).is_cpu
    for name in timings.devices(expansion.dataset.name):
        if (timings.threads(name) is not None) == on_cpu:
            return choose_device(expansion, timings, name)
    return Device(expected, _constants(expansion, device_model(expected)))


def _constants(expansion: Expansion, model: DeviceModel) -> DeviceModel:
    return for_photos(model) if expansion.images.photos else model


def model_training(
    networks: Networks, recipe: Recipe, images: ImageFacts, device: Device
) -> Estimate:
    """Return the model's estimate of one training, scaled where the device has a scale."""
    scale = 1.0 if device.scale is None else device.scale
    step = scale * step_seconds(networks, recipe.batch_size, device)
    rounded = math.ceil if recipe.last_batch == "keep" else math.floor
    steps = rounded(images.train_images / recipe.batch_size)
    at_once = math.ceil(recipe.batch_size / device.parts)
    evaluation = scale * evaluation_seconds(networks.student, images, device)
    memory = training_bytes(networks, at_once, images)
    on_cpu = device.model.is_cpu
    parameters, extra = networks.student.parameters, networks.extra
    kept = FLOAT_BYTES * parameters + HALF_BYTES * images.test_images * images.classes
    moving = 2 * FLOAT_BYTES * parameters + extra.bytes + FLOAT_BYTES * extra.parameters
    host = CPU_HOST_BYTES + memory if on_cpu else GPU_HOST_BYTES + _pixels(images)
    if images.photos:  # loader processes of training and evaluation; a checkpoint as it is written
        host += 0 if on_cpu else 2 * DECODING_CORES * LOADER_BYTES
        host += 2 * moving
    return Estimate(
        seconds_per_step=step,
        seconds=recipe.epochs * (steps * step + evaluation),
        device_bytes=0 if on_cpu else CONTEXT_BYTES + memory,
        host_bytes=host,
        disk_bytes=kept + RECORD_BYTES + recipe.epochs * EPOCH_BYTES,
        checkpoint_bytes=GENERATIONS * moving,
        utilisation=_utilisation(networks, recipe.batch_size, step, device),
        source="model" if device.scale is None else "scaled",
    )


def step_seconds(networks: Networks, batch_size: int, device: Device) -> float:
    """Return the model's seconds of one training step, unscaled.

    The longer of what the device needs to compute and what the host needs to launch it.
    """
    student, teacher = networks.student, networks.teacher
    launches = FORWARD_AND_BACKWARD * student.layers + (teacher.layers if teacher else 0)
    launching = (launches + STEP_LAUNCHES) * device.model.launch_seconds
    return max(_step_work(networks, batch_size) / device.rate, launching)


def evaluation_seconds(network: NetworkFacts, images: ImageFacts, device: Device) -> float:
    """Return the model's seconds of one evaluation on the test images, unscaled."""
    batches = math.ceil(images.test_images / EVALUATION_BATCH)
    launching = batches * network.layers * device.model.launch_seconds
    return max(images.test_images * network.multiply_adds / device.rate, launching)


def training_bytes(networks: Networks, batch_size: int, images: ImageFacts) -> int:
    """Return the bytes of a training's images, weights, momenta, gradients and activations."""
    student, teacher, extra = networks.student, networks.teacher, networks.extra
    trained = student.parameters + extra.parameters
    weights = 3 * trained + (teacher.parameters if teacher else 0)
    buffers = extra.bytes - FLOAT_BYTES * extra.parameters
    activations = 2 * student.activations + (teacher.activations // 2 if teacher else 0)
    return _pixels(images) + FLOAT_BYTES * (weights + batch_size * activations) + buffers


def _step_work(networks: Networks, batch_size: int) -> int:
    """Return the multiply-adds of one step."""
    trained = networks.student.multiply_adds + networks.extra.multiply_adds
    taught = networks.teacher.multiply_adds if networks.teacher else 0
    return batch_size * (FORWARD_AND_BACKWARD * trained + taught)


def _pixels(images: ImageFacts) -> int:
    """Return the bytes of the data set as uint8; photos stay in their files."""
    if images.photos:
        return 0
    return (images.train_images + images.test_images) * images.channels * images.size**2


def _utilisation(networks: Networks, batch_size: int, step: float, device: Device) -> float:
    if device.model.is_cpu:
        return 1.0
    # The rate is assumed: where the device was measured to be slower, it is busier.
    busy = _step_work(networks, batch_size) / device.rate / step * max(1.0, device.scale or 1.0)
    return min(1.0, max(LEAST_UTILISATION, busy))


def _measured_utilisation(rows: list[Timing]) -> float | None:
    """Return one training's share of the device, as sampled while it ran, or none."""
    shares = [row.gpu_utilisation / row.sharing / 100 for row in rows if row.gpu_utilisation]
    return min(1.0, max(LEAST_UTILISATION, sum(shares) / len(shares))) if shares else None


def _networks(
    expansion: Expansion, spec: RunSpec, extra: ExtraFacts, stored_teacher: bool
) -> Networks:
    live = spec.teacher is not None and not stored_teacher
    teacher = expansion.networks[spec.teacher.network] if live else None
    return Networks(expansion.networks[spec.network], teacher, extra)


def _estimate(
    expansion: Expansion,
    spec: RunSpec,
    extra: ExtraFacts,
    timings: Timings,
    device: Device,
    stored_teacher: bool = False,
) -> Estimate:
    networks = _networks(expansion, spec, extra, stored_teacher)
    modelled = model_training(networks, spec.recipe, expansion.images, device)
    rows = timings.alike(spec, device.name, stored_teacher)
    if not rows:
        return modelled
    rows = [row for row in rows if row.sharing == 1] or rows
    step = sum(row.seconds_per_step for row in rows) / len(rows)
    on_cpu = device.model.is_cpu
    memory = {}
    if like := [row for row in rows if row.parts == device.parts]:
        # On a GPU those that share it are lanes of one process, whose peak is of all of them.
        peaks = (row.peak_memory_bytes / (1 if on_cpu else row.sharing) for row in like)
        peak = round(MEASURED_MARGIN * max(peaks))
        # A GPU's peak is its allocator's: the context comes on top.
        memory = {"host_bytes": peak} if on_cpu else {"device_bytes": CONTEXT_BYTES + peak}
    return replace(
        modelled,
        **memory,
        seconds_per_step=step,
        seconds=spec.recipe.epochs * mean_seconds_per_epoch(rows),
        utilisation=_measured_utilisation(rows)
        or _utilisation(networks, spec.recipe.batch_size, step, device),
        source="measured",
    )


def _ratios(expansion: Expansion, timings: Timings, device: Device) -> Iterator[float]:
    """Yield measured over modelled seconds a step, for every timing the study can model."""
    trained = [node.spec.run for node in expansion.teachers if node.spec.kind == "trained"]
    parts = [(cell.spec, cell.extra) for cell in expansion.cells]
    seen: set[int] = set()
    for spec, extra in [*parts, *((run, ExtraFacts()) for run in trained)]:
        rows = [row for row in timings.of(spec, device.name) if id(row) not in seen]
        seen.update(map(id, rows))
        for row in rows:
            yield _ratio(row, _networks(expansion, spec, extra, row.stored_teacher), device)


def _ratio(row: Timing, networks: Networks, device: Device) -> float:
    return row.seconds_per_step / step_seconds(networks, row.batch_size, device)
