"""Estimates of one training: seconds, memory, disk space. Imports no torch.

docs/planning.md describes the model. Measurements of finished runs take precedence over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from skd.common.errors import UnknownNameError
from skd.planning.devices import (
    DEFAULT_DEVICE_MODEL,
    DeviceModel,
    PlannedDevice,
    assumed_for_photos,
    device_model,
    device_model_of,
    median_scale,
)
from skd.planning.slowdown import measured_seconds_alone, measured_utilisation, sampled_utilisation
from skd.planning.step_model import (
    FLOAT_BYTES,
    StepNetworks,
    dataset_bytes,
    evaluation_seconds,
    step_seconds,
    training_bytes,
    utilisation,
)
from skd.planning.timings import Timing, Timings, latest_execution, least_shared
from skd.planning.views_choice import ViewsPlan
from skd.study.expansion import Cell, Expansion, ImageInfo, ObjectiveProfile, TeacherNode
from skd.study.spec import ImportedTeacher, Recipe, RunSpec

HALF_BYTES = 2
MIB = 2**20
CONTEXT_BYTES = 500 * MIB  # device memory of a process: context, kernels, workspaces
GPU_HOST_BYTES = 3000 * MIB  # host memory of a process that uses a GPU
CPU_HOST_BYTES = 600 * MIB  # host memory of a process on a CPU: Python and torch
LOADER_BYTES = 400 * MIB  # host memory of a process that decodes photos, with its batches
DECODING_CORES = 8  # for each GPU that trains on photos; docs/data.md has the rate of a core
MEASURED_MARGIN = 1.2  # factor on a measured peak
RECORD_BYTES, EPOCH_BYTES = 8_000, 900  # a record, and each epoch in it
GENERATIONS = 2  # number of checkpoints on disk
OPTIMIZER_AVERAGES = {"sgd": 1, "adamw": 2}  # numbers that it keeps for each weight

EstimateSource = Literal["measured", "scaled", "model"]


@dataclass(frozen=True)
class Estimate:
    """The estimate of one training.

    Attributes:
        seconds_per_step: seconds of one training step.
        seconds: total seconds with all evaluations, alone on its device.
        device_bytes: peak memory on the device; 0 on a CPU.
        host_bytes: peak memory of the process on the host.
        disk_bytes: disk space of its results: weights, test logits, record.
        checkpoint_bytes: disk space of its checkpoints, which are removed at the end.
        utilisation: the share of the device's time that the training uses alone, in (0, 1].
        source: measured: from finished runs of the same kind; scaled: from the model, scaled by
            other measurements on the device; model: from the model alone.
        utilisation_known: whether the utilisation comes from finished runs of the same kind or
            from constants that were fitted to measurements.
    """

    seconds_per_step: float
    seconds: float
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    checkpoint_bytes: int
    utilisation: float
    source: EstimateSource
    utilisation_known: bool = False

    @property
    def utilisation_or_one(self) -> float:
        """The utilisation if it is known, else 1: devices are not shared on a guess."""
        return self.utilisation if self.utilisation_known else 1.0


def estimate_run(
    expansion: Expansion,
    cell: Cell,
    timings: Timings,
    device: PlannedDevice,
    stored_teacher: bool = False,
) -> Estimate:
    """Return the estimate of one run of a cell, with a live or a stored teacher."""
    return _estimate(expansion, cell.spec, cell.extra, timings, device, stored_teacher)


def views_seconds(expansion: Expansion, plan: ViewsPlan, device: PlannedDevice) -> float:
    """Return the seconds to store a teacher's views: a forward pass on each view of each image."""
    network = expansion.networks[expansion.teacher(plan.teacher).spec.network]
    images = expansion.images.train_images * plan.view_epochs
    return (device.scale or 1.0) * images * network.multiply_adds / device.rate


def estimate_teacher(
    expansion: Expansion, node: TeacherNode, timings: Timings, device: PlannedDevice
) -> Estimate:
    """Return the estimate of a teacher: its training, or only its evaluation if it is imported."""
    if not isinstance(node.spec, ImportedTeacher):
        return _estimate(expansion, node.spec.run, node.extra, timings, device)
    networks = StepNetworks(expansion.networks[node.spec.network])
    recipe = Recipe(epochs=1, milestones=())
    modelled = model_training(networks, recipe, expansion.images, device)
    seconds = evaluation_seconds(networks.student, expansion.images, device)
    return replace(modelled, seconds=seconds * (device.scale or 1), checkpoint_bytes=0)


def choose_device(
    expansion: Expansion, timings: Timings, name: str | None = None, model: str | None = None
) -> PlannedDevice:
    """Return the device to plan for.

    Args:
        expansion: the study.
        timings: the timings of the store.
        name: the device's name in records. By default, the device with the most timings of the
            study's data set (among those of ``model``, if given); without timings, the model.
        model: the name of a reference device.

    Raises:
        UnknownNameError: no timing has that device, or there is no such reference device.
    """
    wanted = _constants(expansion, device_model(model)) if model else None
    recorded_devices = {
        recorded: _constants(
            expansion, device_model_of(recorded, on_cpu=timings.threads(recorded) is not None)
        )
        for recorded in timings.devices()
    }
    if name is None:
        usual = timings.devices(expansion.dataset.name)
        name = next((known for known in usual if wanted in (None, recorded_devices[known])), None)
        if name is None:
            constants = wanted or _constants(expansion, device_model(DEFAULT_DEVICE_MODEL))
            return PlannedDevice(constants.name, constants)
    elif name not in recorded_devices:
        raise UnknownNameError("device", name, recorded_devices)
    device = PlannedDevice(name, wanted or recorded_devices[name], timings.threads(name) or 1)
    return replace(device, scale=median_scale([*_ratios(expansion, timings, device)]))


def default_device(expansion: Expansion, timings: Timings, expected: str) -> PlannedDevice:
    """Return the device with the most timings; without timings, a reference device.

    Args:
        expansion: the study.
        timings: the timings of the store.
        expected: the name of a reference device. Only timings of the same kind, CPU or GPU, count.

    Raises:
        UnknownNameError: there is no such reference device.
    """
    on_cpu = device_model(expected).is_cpu
    for name in timings.devices(expansion.dataset.name):
        if (timings.threads(name) is not None) == on_cpu:
            return choose_device(expansion, timings, name)
    return PlannedDevice(expected, _constants(expansion, device_model(expected)))


def local_device(expansion: Expansion, timings: Timings, name: str) -> PlannedDevice:
    """Return this machine's GPU, by its name in records, with or without measurements."""
    if name in timings.devices():
        return choose_device(expansion, timings, name)
    return PlannedDevice(name, _constants(expansion, device_model_of(name, on_cpu=False)))


def _constants(expansion: Expansion, model: DeviceModel) -> DeviceModel:
    return assumed_for_photos(model) if expansion.images.photos else model


def model_training(
    networks: StepNetworks, recipe: Recipe, images: ImageInfo, device: PlannedDevice
) -> Estimate:
    """Return the model's estimate of one training, scaled if the device has a scale."""
    scale = 1.0 if device.scale is None else device.scale
    step = scale * step_seconds(networks, recipe.batch_size, device)
    steps = recipe.steps_per_epoch(images.train_images)
    part_size = math.ceil(recipe.batch_size / device.parts)
    evaluation = scale * evaluation_seconds(networks.student, images, device)
    averages = OPTIMIZER_AVERAGES[recipe.optimizer]
    memory = training_bytes(networks, part_size, images, averages)
    on_cpu = device.model.is_cpu
    parameters, extra = networks.student.parameters, networks.extra
    weights_and_logits = FLOAT_BYTES * parameters + HALF_BYTES * images.test_images * images.classes
    checkpoint = (1 + averages) * FLOAT_BYTES * parameters + extra.bytes
    checkpoint += averages * FLOAT_BYTES * extra.parameters
    host = CPU_HOST_BYTES + memory if on_cpu else GPU_HOST_BYTES + dataset_bytes(images)
    if images.photos:  # loader processes of training and evaluation; a copy of the checkpoint
        host += 0 if on_cpu else 2 * DECODING_CORES * LOADER_BYTES
        host += 2 * checkpoint
    return Estimate(
        seconds_per_step=step,
        seconds=recipe.epochs * (steps * step + evaluation),
        device_bytes=0 if on_cpu else CONTEXT_BYTES + memory,
        host_bytes=host,
        disk_bytes=weights_and_logits + RECORD_BYTES + recipe.epochs * EPOCH_BYTES,
        checkpoint_bytes=GENERATIONS * checkpoint,
        utilisation=utilisation(networks, recipe.batch_size, device),
        source="model" if device.scale is None else "scaled",
        utilisation_known=bool(device.model.fitted_to),
    )


def _measured_utilisation(rows: list[Timing], device: PlannedDevice) -> float | None:
    """Return the share of the device's time that one run alone uses, or ``None``.

    Measurements with two numbers of lanes give it. The driver's samples only show whether any
    kernel ran, so they are used if there is nothing better.
    """
    if device.model.is_cpu:
        return None
    share = measured_utilisation(rows)
    if share is None and not device.model.fitted_to:
        return sampled_utilisation(rows)
    return share


def _networks(
    expansion: Expansion, spec: RunSpec, extra: ObjectiveProfile, stored_teacher: bool
) -> StepNetworks:
    live = spec.teacher is not None and not stored_teacher
    teacher = expansion.networks[spec.teacher.network] if live else None
    return StepNetworks(expansion.networks[spec.network], teacher, extra)


def _estimate(
    expansion: Expansion,
    spec: RunSpec,
    extra: ObjectiveProfile,
    timings: Timings,
    device: PlannedDevice,
    stored_teacher: bool = False,
) -> Estimate:
    networks = _networks(expansion, spec, extra, stored_teacher)
    modelled = model_training(networks, spec.recipe, expansion.images, device)
    rows = latest_execution(timings.matching(spec, device.name, stored_teacher))
    if not rows:
        return modelled
    measured_share = _measured_utilisation(rows, device)
    share = modelled.utilisation if measured_share is None else measured_share
    on_cpu = device.model.is_cpu
    memory = {}
    if comparable := [row for row in least_shared(rows) if row.parts == device.parts]:
        # Runs that share a GPU are lanes of one process: its peak is that of all of them.
        peaks = (row.peak_memory_bytes / (1 if on_cpu else row.sharing) for row in comparable)
        peak = round(MEASURED_MARGIN * max(peaks))
        # On a GPU, the peak is that of the allocator, without the context.
        memory = {"host_bytes": peak} if on_cpu else {"device_bytes": CONTEXT_BYTES + peak}
    return replace(
        modelled,
        **memory,
        seconds_per_step=measured_seconds_alone(rows, lambda row: row.seconds_per_step, share),
        seconds=spec.recipe.epochs
        * measured_seconds_alone(rows, lambda row: row.device_seconds_per_epoch, share),
        utilisation=share,
        source="measured",
        utilisation_known=modelled.utilisation_known or measured_share is not None,
    )


def _ratios(expansion: Expansion, timings: Timings, device: PlannedDevice) -> Iterator[float]:
    """Yield measured over modelled seconds per step, for each timing of the study's networks."""
    trained = [node for node in expansion.teachers if node.spec.kind == "trained"]
    runs = [(cell.spec, cell.extra) for cell in expansion.cells]
    used: set[int] = set()
    for spec, extra in [*runs, *((node.spec.run, node.extra) for node in trained)]:
        rows = [
            row for row in latest_execution(timings.of(spec, device.name)) if id(row) not in used
        ]
        used.update(map(id, rows))
        for row in rows:
            yield _ratio(row, _networks(expansion, spec, extra, row.stored_teacher), device)


def _ratio(row: Timing, networks: StepNetworks, device: PlannedDevice) -> float:
    # Lanes share the time of a GPU, so each has a part of it. Runs that share a CPU have their own
    # cores.
    lanes = 1 if device.model.is_cpu else row.sharing
    return row.seconds_per_step / lanes / step_seconds(networks, row.batch_size, device, lanes)
