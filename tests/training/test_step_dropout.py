"""Runs whose student has `StepDropout`: repeated, resumed, divided and side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from skd.data import load_dataset
from skd.losses.methods import resolve_method
from skd.models.step_dropout import StepDropout
from skd.study.sheet import SheetMethod
from skd.study.spec import DatasetSpec, Recipe, RunSpec
from skd.training.data_parallel import BatchPartition
from skd.training.execution import Execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from tests.builders.networks import added_networks
from tests.builders.steps import CPU

RECIPE = Recipe(epochs=2, batch_size=16, milestones=(), last_batch="drop", bn_batch=8)


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    with added_networks(
        stepping=lambda: StepDropout(0.5), plain=lambda: StepDropout(0.0), never=torch.nn.Identity
    ):
        yield


def training(network: str = "stepping", accumulate: int = 1) -> Training:
    dataset = DatasetSpec(name="digits", train_limit=48)
    spec = RunSpec(
        dataset=dataset,
        network=network,
        method=resolve_method(SheetMethod(name="student"), {}),
        recipe=RECIPE,
        seed=0,
    )
    images = load_dataset(dataset)
    images = replace(images, test_images=images.test_images[:8], test_labels=images.test_labels[:8])
    return Training(
        spec,
        DeviceDataset(images, CPU),
        None,
        Execution(device="cpu", threads=1),
        BatchPartition(accumulate=accumulate),
    )


def advance(run: Training, steps: int) -> list[torch.Tensor]:
    for _ in range(steps):
        if run.step == run.steps_per_epoch:
            run.run_epoch(lambda _: None)
        run.advance()
    return [tensor.clone() for tensor in run.student.state_dict().values()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_run_repeats_and_differs_from_one_without_dropout() -> None:
    first = advance(training(), 2)
    torch.rand(3)  # the global generator has no say
    assert equal(first, advance(training(), 2))
    assert not equal(first, advance(training("plain"), 2))


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_resumed_run_ends_with_the_same_bits(steps: int) -> None:
    whole = training()
    advance(whole, steps)
    state = copy.deepcopy(whole.state())
    wanted = advance(whole, 5 - steps)
    resumed = training()
    resumed.load_state(state)
    assert equal(advance(resumed, 5 - steps), wanted)


def test_masks_change_from_step_to_step() -> None:
    run, seeds = training(), []
    for _ in range(5):
        advance(run, 1)
        seeds.append(run.student.drop.step_seed.item())
    assert len({*seeds}) == 5


def test_a_divided_batch_drops_the_same_units() -> None:
    whole, parts = advance(training(), 2), advance(training(accumulate=2), 2)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    other = advance(training("plain"), 2)
    assert max((a - b).abs().max() for a, b in zip(whole, other, strict=True)) > 1e-3


def test_a_network_without_such_layers_draws_nothing() -> None:
    run = training("never")
    first = advance(run, 2)
    assert run.training_step.dropouts == ()
    assert run._steps.draws.generators == ()
    assert equal(first, advance(training("plain"), 2))


def test_an_evaluation_drops_nothing() -> None:
    run = training()
    advance(run, 1)
    assert torch.equal(run.evaluate().clone(), run.evaluate())
    assert run.student.training


def test_the_layer_can_be_compiled() -> None:
    """One graph, without a break: the loop's compiler refuses breaks."""
    made = training().student.drop
    made.is_seeded = True
    run = torch.compile(made, fullgraph=True, backend="eager")
    x = torch.randn(4, 8, 3, 3)
    for seed in (3, 4):
        made.step_seed.fill_(seed)
        assert torch.equal(run(x), made(x))
