"""Single steps of small trainings, and the tensors that they change."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from skd.common.errors import InterruptedRunError
from skd.data import load_dataset as load_images
from skd.data.images import Images
from skd.losses.discovery import term_classes
from skd.store.store import Store
from skd.training.execution import Execution, choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher
from skd.training.teacher_setup import train_teacher
from skd.training.weights import load_teacher_network
from tests.builders import tiny

CPU = torch.device("cpu")
TERMS = sorted(
    name
    for name, term in term_classes().items()
    if name != "cross_entropy" and not term.uses_partner
)
METHODS = ["student", "skd", *TERMS, *(f"skd+{name}" for name in ("kd", "dkd", "crd", "reviewkd"))]
SETTINGS = {
    "simplifier": {"learning_rate_multiplier": 1.0},
    "dkd": {"warmup_epochs": 2},  # so that weights rise within few epochs
    "reviewkd": {"warmup_epochs": 4},
}
STUDY = tiny.study(methods=METHODS, settings=SETTINGS, recipe={"epochs": 5, "milestones": [2]})
STEPS = 10  # two an epoch, the last of 16


def trained_teacher(results: Path) -> LiveTeacher:
    """Train the study's teacher in a results folder, and return it."""
    node = STUDY.teachers[0]
    entry = Store(results).teacher(node.id)
    train_teacher(node.spec, entry, tiny.options(), "teacher")
    return LiveTeacher(load_teacher_network(entry, CPU, 10).network)


def few_images() -> Images:
    """Return the study's images, with few test images."""
    images = load_images(STUDY.dataset)
    return replace(images, test_images=images.test_images[:20], test_labels=images.test_labels[:20])


def training_of(
    method: str,
    teacher: LiveTeacher,
    execution: Execution | None = None,
    seed: int = 0,
    images: Images | None = None,
) -> Training:
    """Return a run of the study on one CPU thread, at its first step."""
    cell = STUDY.cell_of(*tiny.PAIR.split("--"), method)
    alone = cell.teacher is None
    material = DeviceDataset(images or few_images(), CPU)
    chosen = execution or choose_execution("cpu", 1)
    return Training(cell.run(seed), material, None if alone else teacher, chosen)


def train(training: Training, steps: int = STEPS) -> dict[str, Tensor]:
    """Train a number of steps over as many epochs as needed; return all changed tensors."""

    def after_step(training: Training) -> None:
        if training.epochs_done * training.steps_per_epoch + training.step == steps:
            raise InterruptedRunError("enough")

    with contextlib.suppress(InterruptedRunError):
        while training.epochs_done < training.spec.recipe.epochs:
            training.run_epoch(after_step)
    state = training.state()
    return {
        f"{part}.{name}": value
        for part in ("student", "objective", "sums")
        for name, value in state[part].items()
    }


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Compare all tensors that two trainings changed."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, equal_nan=True, msg=name)
