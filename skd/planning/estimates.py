"""What one training will take: seconds, memory, disk. Imports no torch.

The model, in words: docs/planning.md. Where finished runs have measured the same, they are right.
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
CONTEXT_BYTES = 500 * MIB  # of a process on a GPU: context, kernels, workspaces
GPU_HOST_BYTES = 3000 * MIB  # of a process that uses a GPU, on the host
LOADER_BYTES = 400 * MIB  # of a process that decodes photos, and its batches
DECODING_CORES = 8  # beside each GPU that trains on photos; docs/data.md has what one decodes
CPU_HOST_BYTES = 600 * MIB  # of one that does not: Python and torch
MEASURED_MARGIN = 1.2  # on a measured peak
RECORD_BYTES, EPOCH_BYTES = 8_000, 900  # a record, and each epoch in it
GENERATIONS = 2  # of checkpoints

EstimateSource = Literal["measured", "scaled", "model"]


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
        utilisation: share of the device's time that it uses alone, in (0, 1].
        source: the same was measured; the model, scaled by what else was measured; the model.
        utilisation_known: whether the utilisation rests on a measurement of like runs, or on
            constants that were fitted to measurements.
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
        """The utilisation where it is known, else 1: no device is shared on a guess."""
        return self.utilisation if self.utilisation_known else 1.0


def estimate_run(
    expansion: Expansion,
    cell: Cell,
    timings: Timings,
    device: PlannedDevice,
    stored_teacher: bool = False,
) -> Estimate:
    """Return what any one of a cell's runs takes, with a live or a stored teacher."""
    return _estimate(expansion, cell.spec, cell.extra, timings, device, stored_teacher)


def views_seconds(expansion: Expansion, plan: ViewsPlan, device: PlannedDevice) -> float:
    """Return what storing a teacher's views takes: forward passes on all views of all images."""
    network = expansion.networks[expansion.teacher(plan.teacher).spec.network]
    images = expansion.images.train_images * plan.view_epochs
    return (device.scale or 1.0) * images * network.multiply_adds / device.rate


def estimate_teacher(
    expansion: Expansion, node: TeacherNode, timings: Timings, device: PlannedDevice
) -> Estimate:
    """Return what a teacher takes: trained here, or only evaluated where it is imported."""
    if not isinstance(node.spec, ImportedTeacher):
        return _estimate(expansion, node.spec.run, ObjectiveProfile(), timings, device)
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
            expansion, device_model_of(recorded, on_cpu=timings.threads(recorded) is not None)
        )
        for recorded in timings.devices()
    }
    if name is None:
        usual = timings.devices(expansion.dataset.name)
        name = next((known for known in usual if wanted in (None, found[known])), None)
        if name is None:
            constants = wanted or _constants(expansion, device_model(DEFAULT_DEVICE_MODEL))
            return PlannedDevice(constants.name, constants)
    elif name not in found:
        raise UnknownNameError("device", name, found)
    device = PlannedDevice(name, wanted or found[name], timings.threads(name) or 1)
    return replace(device, scale=median_scale([*_ratios(expansion, timings, device)]))


def default_device(expansion: Expansion, timings: Timings, expected: str) -> PlannedDevice:
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
    return PlannedDevice(expected, _constants(expansion, device_model(expected)))


def local_device(expansion: Expansion, timings: Timings, name: str) -> PlannedDevice:
    """Return a GPU that is here, as records name it, whether anything was measured on it or not."""
    if name in timings.devices():
        return choose_device(expansion, timings, name)
    return PlannedDevice(name, _constants(expansion, device_model_of(name, on_cpu=False)))


def _constants(expansion: Expansion, model: DeviceModel) -> DeviceModel:
    return assumed_for_photos(model) if expansion.images.photos else model


def model_training(
    networks: StepNetworks, recipe: Recipe, images: ImageInfo, device: PlannedDevice
) -> Estimate:
    """Return the model's estimate of one training, scaled where the device has a scale."""
    scale = 1.0 if device.scale is None else device.scale
    step = scale * step_seconds(networks, recipe.batch_size, device)
    steps = recipe.steps_per_epoch(images.train_images)
    at_once = math.ceil(recipe.batch_size / device.parts)
    evaluation = scale * evaluation_seconds(networks.student, images, device)
    memory = training_bytes(networks, at_once, images)
    on_cpu = device.model.is_cpu
    parameters, extra = networks.student.parameters, networks.extra
    kept = FLOAT_BYTES * parameters + HALF_BYTES * images.test_images * images.classes
    moving = 2 * FLOAT_BYTES * parameters + extra.bytes + FLOAT_BYTES * extra.parameters
    host = CPU_HOST_BYTES + memory if on_cpu else GPU_HOST_BYTES + dataset_bytes(images)
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
        utilisation=utilisation(networks, recipe.batch_size, device),
        source="model" if device.scale is None else "scaled",
        utilisation_known=bool(device.model.fitted_to),
    )


def _measured_utilisation(rows: list[Timing], device: PlannedDevice) -> float | None:
    """Return the share of the device's time that one run alone uses, or none.

    Two numbers of lanes tell it. The driver's samples tell no more than that some kernel ran: they
    count where there is nothing better.
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
    alike = latest_execution(timings.matching(spec, device.name, stored_teacher))
    if not alike:
        return modelled
    share = _measured_utilisation(alike, device)
    busy = modelled.utilisation if share is None else share
    on_cpu = device.model.is_cpu
    memory = {}
    if like := [row for row in least_shared(alike) if row.parts == device.parts]:
        # On a GPU those that share it are lanes of one process, whose peak is of all of them.
        peaks = (row.peak_memory_bytes / (1 if on_cpu else row.sharing) for row in like)
        peak = round(MEASURED_MARGIN * max(peaks))
        # A GPU's peak is its allocator's: the context comes on top.
        memory = {"host_bytes": peak} if on_cpu else {"device_bytes": CONTEXT_BYTES + peak}
    return replace(
        modelled,
        **memory,
        seconds_per_step=measured_seconds_alone(alike, lambda row: row.seconds_per_step, busy),
        seconds=spec.recipe.epochs
        * measured_seconds_alone(alike, lambda r: r.device_seconds_per_epoch, busy),
        utilisation=busy,
        source="measured",
        utilisation_known=modelled.utilisation_known or share is not None,
    )


def _ratios(expansion: Expansion, timings: Timings, device: PlannedDevice) -> Iterator[float]:
    """Yield measured over modelled seconds a step, for every timing the study can model."""
    trained = [node.spec.run for node in expansion.teachers if node.spec.kind == "trained"]
    parts = [(cell.spec, cell.extra) for cell in expansion.cells]
    seen: set[int] = set()
    for spec, extra in [*parts, *((run, ObjectiveProfile()) for run in trained)]:
        rows = [
            row for row in latest_execution(timings.of(spec, device.name)) if id(row) not in seen
        ]
        seen.update(map(id, rows))
        for row in rows:
            yield _ratio(row, _networks(expansion, spec, extra, row.stored_teacher), device)


def _ratio(row: Timing, networks: StepNetworks, device: PlannedDevice) -> float:
    # A lane's own time is the device's with the others: a step takes a part of it. On a CPU runs
    # that share it have cores of their own.
    lanes = 1 if device.model.is_cpu else row.sharing
    return row.seconds_per_step / lanes / step_seconds(networks, row.batch_size, device, lanes)
