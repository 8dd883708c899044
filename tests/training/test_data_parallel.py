"""A batch divided into parts gives the same step; divisions that change a run are refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from skd.data import load_dataset as load_images
from skd.models import build_model
from skd.training.data_parallel import BatchPartition, DivisionError
from skd.training.distributed import SingleProcess
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher
from tests.builders import tiny

CPU = torch.device("cpu")
RECIPE = {"epochs": 2, "milestones": [1], "batch_size": 32, "bn_batch": 8, "last_batch": "drop"}
# Methods with a separate loss of each image, and their sums with a simplifier of groups.
METHODS = [
    *("student", "kd", "dkd", "crd", "reviewkd", "fitnet", "at", "nkd", "simkd", "srrl", "ofd"),
    *("skd", "skd+kd", "skd+dkd", "skd+crd", "skd+reviewkd"),
]
GROUPED = {"simplifier": {"group": 8, "learning_rate_multiplier": 1.0}, "crd": {"negatives": 20}}


def study_of(recipe: dict[str, Any], settings: dict[str, Any], methods: list[str]):
    dataset = {"name": "digits", "train_limit": 80}
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the dtype of the trials that an expansion caches
    try:
        return tiny.study(dataset=dataset, recipe=recipe, settings=settings, methods=methods)
    finally:
        torch.set_default_dtype(kind)


def training_of(
    method: str,
    division: BatchPartition | None = None,
    recipe: dict[str, Any] = RECIPE,
    settings: dict[str, Any] = GROUPED,
) -> Training:
    alone = method == "student"
    cell = study_of(recipe, settings, [method]).cell("resnet8" if alone else tiny.PAIR, method)
    images = load_images(cell.spec.dataset)
    few = replace(images, test_images=images.test_images[:20], test_labels=images.test_labels[:20])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_model("resnet8", 10).eval().requires_grad_(False)
    teacher = None if alone else LiveTeacher(network.to(torch.get_default_dtype()))
    return Training(
        cell.run(0), DeviceDataset(few, CPU), teacher, choose_execution("cpu", 1), division
    )


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def moved(training: Training) -> dict[str, torch.Tensor]:
    state = training.state()
    return {
        f"{part}.{name}": value.clone()
        for part in ("student", "objective", "sums")
        for name, value in state[part].items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_steps_in_parts_are_whole_steps(double, method: str) -> None:
    whole, parts = training_of(method), training_of(method, BatchPartition(accumulate=4))
    for _ in range(3):  # past the first epoch
        for training in (whole, parts):
            if training.step == training.steps_per_epoch:
                training._finish_epoch(0.0)
            training.advance()
    expected, actual = moved(whole), moved(parts)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-9, atol=1e-11, equal_nan=True, msg=lambda m, n=name: n + m
        )


@dataclass(frozen=True)
class Several(SingleProcess):
    """A team whose methods are not called."""

    rank: int = 0
    world_size: int = 2


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (2, 4), (8, 1)])
def test_the_parts_of_all_processes_are_the_batch(processes: int, accumulate: int) -> None:
    places = [
        place
        for rank in range(processes)
        for part in BatchPartition(Several(rank, processes), accumulate).own_parts(64)
        for place in part
    ]
    assert places == list(range(64))


@pytest.mark.parametrize(
    ("recipe", "accumulate", "message"),
    [
        ({"bn_batch": None}, 2, "the recipe needs a bn_batch that divides"),
        ({"bn_batch": 12}, 2, "divides the batch of 32"),
        ({}, 3, "processes times parts may be: 1, 2, 4"),
        ({"last_batch": "keep"}, 2, "set last_batch: drop"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    recipe: dict[str, Any], accumulate: int, message: str
) -> None:
    with pytest.raises(DivisionError, match=message):
        training_of("kd", BatchPartition(accumulate=accumulate), {**RECIPE, **recipe})


def test_what_sees_the_whole_batch_is_not_divided() -> None:
    ungrouped = {**GROUPED, "simplifier": {}}
    training_of("skd", settings=ungrouped)
    with pytest.raises(DivisionError, match="group"):
        training_of("skd", BatchPartition(accumulate=2), settings=ungrouped)
    with pytest.raises(DivisionError, match="rkd"):
        training_of("rkd", BatchPartition(accumulate=2))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    training = training_of("student")
    recipe = training.spec.recipe.model_copy(update={"batch_size": 96})
    with pytest.raises(DivisionError, match="80 training images make no batch of 96"):
        BatchPartition().check(recipe, training.objective, 80)


def test_the_last_batch_is_dropped_if_the_recipe_drops_it() -> None:
    training = training_of("student")
    row = training.run_epoch(lambda _: None)
    assert training.steps_per_epoch == 2
    assert training.training_step.inputs.images_per_epoch == 64
    whole = training_of("student", recipe={**RECIPE, "last_batch": "keep"})
    assert whole.steps_per_epoch == 3
    assert row.epoch == 1


def test_groups_change_the_run_and_its_identity() -> None:
    plain = {key: value for key, value in RECIPE.items() if key != "bn_batch"}
    one = study_of(RECIPE, {}, ["student"]).cell("resnet8", "student")
    other = study_of(plain, {}, ["student"]).cell("resnet8", "student")
    assert one.runs != other.runs
    a, b = training_of("student"), training_of("student", recipe=plain)
    for training in (a, b):
        training.advance()
    assert not torch.equal(a.student.conv1.weight, b.student.conv1.weight)


def test_a_copy_of_the_teams_face() -> None:
    """`SingleProcess` answers for one process as `Processes` does for several."""
    team = SingleProcess()
    rows = torch.arange(3)
    assert team.all_gather(rows) is rows
    assert team.broadcast(lambda: 4) == 4
    assert team.all_reduce_max(2) == 2
    total = copy.deepcopy(rows)
    team.all_reduce_sum([total])
    assert torch.equal(total, rows)
