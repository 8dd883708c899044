"""A checkpoint of skd+crd from before transformations were plug-ins continues to the same bits.

``data/skd-crd.pt`` is the state after three steps, and ``data/skd-crd.json`` has the run's identity
and, for each tensor three steps later, its sum and its sum of squares. Both were written by the
code of that time. Bits differ between types of CPU: on a machine whose first three steps have the
bits of the file, the others must have those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from skd.common.errors import InterruptedRunError
from skd.data import load_dataset
from skd.losses.methods import resolve_method
from skd.models import build_model
from skd.randomness import seeded
from skd.study.sheet import SheetMethod
from skd.study.spec import DatasetSpec, ImportedTeacher, Recipe, RunSpec
from skd.training.execution import Execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher

DATA = Path(__file__).with_name("data")
DATASET = DatasetSpec(name="digits", train_limit=32)
SAVED, LAST = 3, 6  # steps


@pytest.fixture(scope="module")
def build() -> Callable[[], Training]:
    settings = {"simplifier": {"learning_rate_multiplier": 1.0, "heads": 2}}
    spec = RunSpec(
        dataset=DATASET,
        network="resnet8",
        teacher=ImportedTeacher(network="resnet8", dataset=DATASET, sha256="made up"),
        method=resolve_method(SheetMethod(name="skd+crd"), settings),
        recipe=Recipe(epochs=3, milestones=(2,), batch_size=8),
        seed=3,
    )
    images = load_dataset(DATASET)
    with seeded(5, "teacher"), torch.no_grad():
        teacher = build_model("resnet8", 10)
        teacher(images.train_images / 255)  # BatchNorm's statistics
    teacher = LiveTeacher(teacher.eval().requires_grad_(False))
    execution = Execution(device="cpu", threads=1)

    def build_training() -> Training:
        return Training(spec, DeviceDataset(images, torch.device("cpu")), teacher, execution)

    return build_training


def tensors(training: Training, until: int) -> dict[str, Tensor]:
    """Train up to a step; return all tensors that training changes."""

    def stop(training: Training) -> None:
        if training.steps_done == until:
            raise InterruptedRunError("enough")

    with contextlib.suppress(InterruptedRunError):
        while training.steps_done < until:
            training.run_epoch(stop)
    return flat(training.state())


def flat(state: dict[str, Any]) -> dict[str, Tensor]:
    momenta = {
        f"momentum.{place}": values["momentum_buffer"]
        for place, values in state["optimizer"]["state"].items()
    }
    parts = {part: state[part] for part in ("student", "objective", "sums")}
    named = {f"{part}.{key}": t for part, values in parts.items() for key, t in values.items()}
    return {key: tensor.clone() for key, tensor in {**named, **momenta}.items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_an_old_checkpoint_continues_to_the_same_numbers(build: Callable[[], Training]) -> None:
    torch.set_num_threads(1)
    state = torch.load(DATA / "skd-crd.pt", weights_only=True)
    stored = flat(state)  # a copy: the optimiser trains with the loaded tensors
    expected = json.loads((DATA / "skd-crd.json").read_text())
    new, resumed = build(), build()
    assert new.spec.identity == expected["identity"]
    before = tensors(new, SAVED)
    assert before.keys() == stored.keys()

    resumed.load_state(state)
    after = tensors(resumed, LAST)
    for name, (total, squares) in expected["sums"].items():
        assert after[name].double().sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3), name
        assert after[name].double().square().sum().item() == pytest.approx(squares, rel=1e-4), name
    if equal(before, stored):
        assert equal(after, tensors(new, LAST))
