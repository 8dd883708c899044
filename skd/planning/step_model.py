"""The model of one step and one evaluation: seconds and memory. Imports no torch.

docs/planning.md describes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from skd.planning.devices import PlannedDevice
from skd.planning.slowdown import slowdown
from skd.study.expansion import ImageInfo, NetworkProfile, ObjectiveProfile

FORWARD_AND_BACKWARD = 3  # the backward pass costs about two forward ones
STEP_LAUNCHES = 50  # optimiser, losses, views and metrics of one step
# Launches of an objective with much work, such as CRD's memory banks and ReviewKD's fusion blocks.
OBJECTIVE_LAUNCHES = 100
OBJECTIVE_WORK = 1e6  # multiply-adds per image from which an objective has much work
EVALUATION_BATCH = 1000  # the batch size of skd.training.evaluation on a GPU
FLOAT_BYTES = 4


@dataclass(frozen=True)
class StepNetworks:
    """The networks and the objective of a training step."""

    student: NetworkProfile
    teacher: NetworkProfile | None = None
    extra: ObjectiveProfile = field(default_factory=ObjectiveProfile)


def step_seconds(
    networks: StepNetworks, batch_size: int, device: PlannedDevice, lanes: int = 1
) -> float:
    """Return the model's seconds of one training step, unscaled.

    This is the time to compute the step or the time to launch its kernels, whichever is longer.

    Args:
        networks: the networks of the run.
        batch_size: the number of images of a step.
        device: the device.
        lanes: the number of similar runs that share the device. The result is then the device's
            time for one step of one run.
    """
    alone = _seconds(networks, batch_size, device, device.model.launch_seconds)
    return alone * slowdown(lanes, utilisation(networks, batch_size, device)) / lanes


def utilisation(networks: StepNetworks, batch_size: int, device: PlannedDevice) -> float:
    """Return the share of the device's time that one run alone uses in the model, in (0, 1]."""
    full = _seconds(networks, batch_size, device, device.model.lane_launch_seconds)
    return full / _seconds(networks, batch_size, device, device.model.launch_seconds)


def evaluation_seconds(network: NetworkProfile, images: ImageInfo, device: PlannedDevice) -> float:
    """Return the model's seconds of one evaluation on the test images, unscaled."""
    batches = math.ceil(images.test_images / EVALUATION_BATCH)
    launching = batches * network.layers * device.model.launch_seconds
    return max(images.test_images * network.multiply_adds / device.rate, launching)


def training_bytes(
    networks: StepNetworks, batch_size: int, images: ImageInfo, averages: int = 1
) -> int:
    """Return the bytes of a training's images, weights, gradients and activations.

    Args:
        networks: of one step.
        batch_size: images that the device processes at once.
        images: the data set.
        averages: numbers that the optimiser keeps for each weight; SGD has its momentum.
    """
    student, teacher, extra = networks.student, networks.teacher, networks.extra
    trained = student.parameters + extra.parameters
    weights = (2 + averages) * trained + (teacher.parameters if teacher else 0)
    buffers = extra.bytes - FLOAT_BYTES * extra.parameters
    activations = 2 * extra.views * student.activations + (
        teacher.activations // 2 if teacher else 0
    )
    return dataset_bytes(images) + FLOAT_BYTES * (weights + batch_size * activations) + buffers


def _seconds(
    networks: StepNetworks, batch_size: int, device: PlannedDevice, launch: float
) -> float:
    """Return the device's seconds of one step if a launch takes a given time."""
    student, teacher, extra = networks.student, networks.teacher, networks.extra
    launches = FORWARD_AND_BACKWARD * student.layers + (teacher.layers if teacher else 0)
    launches *= extra.views
    launches += STEP_LAUNCHES + (OBJECTIVE_LAUNCHES if extra.multiply_adds > OBJECTIVE_WORK else 0)
    return max(_step_work(networks, batch_size) / device.rate, launches * launch)


def _step_work(networks: StepNetworks, batch_size: int) -> int:
    """Return the multiply-adds of one step."""
    extra = networks.extra
    trained = extra.views * networks.student.multiply_adds + extra.multiply_adds
    teacher = extra.views * networks.teacher.multiply_adds if networks.teacher else 0
    return batch_size * (FORWARD_AND_BACKWARD * trained + teacher)


def dataset_bytes(images: ImageInfo) -> int:
    """Return the bytes of the data set as uint8; 0 for photos, which stay in their files."""
    if images.photos:
        return 0
    return (images.train_images + images.test_images) * images.channels * images.size**2
