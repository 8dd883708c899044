"""The fast step gives the plain step's numbers, recorded, replayed or in lanes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from skd.common.errors import DeviceFailedError, InterruptedRunError, RunFailedError
from skd.randomness import Draws
from skd.store.records import Record
from skd.store.store import Store
from skd.training.execution import choose_execution, load_execution
from skd.training.lanes import run_in_lanes
from skd.training.loop import Training
from skd.training.optimizer import make_optimizer
from skd.training.resources import Resources
from skd.training.runs import complete_run
from skd.training.teacher import LiveTeacher
from skd.training.teacher_setup import train_teacher
from tests.builders import tiny
from tests.builders.steps import METHODS, train, trained_teacher, training_of


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LiveTeacher:
    return trained_teacher(tmp_path_factory.mktemp("store"))


@pytest.fixture
def double() -> Iterator[None]:
    """Train in float64, so that remaining differences are not due to rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", METHODS)
def test_ten_steps_fast_are_ten_steps_plain(double, method: str, teacher: LiveTeacher) -> None:
    teacher = LiveTeacher(copy.deepcopy(teacher.network).double())
    fast, plain = (
        train(training_of(method, teacher, choose_execution("cpu", 1, step)))
        for step in ("fast", "plain")
    )
    assert fast.keys() == plain.keys()
    assert fast["student.conv1.weight"].dtype == torch.float64
    for name, value in plain.items():
        torch.testing.assert_close(
            fast[name], value, rtol=1e-5, atol=1e-7, equal_nan=True, msg=lambda m, n=name: n + m
        )


def test_fast_is_another_memory_format_and_optimiser(teacher: LiveTeacher) -> None:
    fast, plain = (
        training_of("kd", teacher, choose_execution("cpu", 1, s)) for s in ("fast", "plain")
    )
    weights = [training.student.conv1.weight for training in (fast, plain)]
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in weights] == [True, False]
    assert [t.optimizer.defaults["fused"] for t in (fast, plain)] == [True, False]
    maps: list[bool] = []
    for training in (fast, plain):
        training.student.bn1.register_forward_hook(
            lambda _m, _i, out: maps.append(out.is_contiguous(memory_format=torch.channels_last))
        )
        training.advance()
    assert maps == [True, False]


READS = ("item", "__bool__", "tolist", "__int__", "__float__", "numpy", "nonzero")


@pytest.mark.parametrize("method", sorted({*METHODS} - {"crd", "skd+crd"}))
def test_nothing_is_read_back_within_an_epoch(method: str, teacher: LiveTeacher) -> None:
    """`item`, `bool` and the like would wait for a GPU. (CRD does, but on a CPU only.)"""
    training = training_of(method, teacher)
    training.advance()  # sets up
    read: list[str] = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if getattr(func, "__name__", "") in READS:
                read.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Watching():
        training.advance()
        assert not read
        assert torch.ones(()).item() == 1  # the mode notices such a read
    assert read == ["item"]


def test_draws_are_of_their_step_whenever_they_are_made() -> None:
    first = Draws(3).set_step(2, 5).generator("a")
    one = torch.rand(4, generator=first)
    later = Draws(3).set_step(1, 1)
    later.generator("a")
    later.set_step(2, 5)  # seeds are set here, so that a recorded step need not do it
    assert torch.equal(torch.rand(4, generator=later.generator("a")), one)
    assert not torch.equal(torch.rand(4, generator=later.generator("b")), one)
    assert later.generators == (later.generator("a"), later.generator("b"))


@pytest.mark.parametrize("nesterov", [False, True])
def test_fused_sgd_is_the_formula_from_the_first_step_on(teacher, nesterov: bool) -> None:
    training = training_of("student", teacher)
    changes = {"nesterov": nesterov, "momentum": 0.9, "weight_decay": 0.01}
    recipe = training.spec.recipe.model_copy(update=changes)
    network = training.student.double()
    optimizer = make_optimizer(recipe, network, training.objective, fused=True)
    weight = network.fc.weight
    value, velocity = weight.detach().clone(), torch.zeros_like(weight)
    generator = torch.Generator().manual_seed(0)
    for rate in (0.05, 0.05, 0.005):
        for group in optimizer.param_groups:
            group["lr"].fill_(rate)
        slope = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = slope.clone()
        optimizer.step()
        slope = slope + 0.01 * value
        velocity = 0.9 * velocity + slope
        rate = torch.tensor(rate).double()  # the device's learning rate is a float32
        value = value - rate * (slope + 0.9 * velocity if nesterov else velocity)
        torch.testing.assert_close(weight.detach(), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["kd", "skd", "skd+crd", "reviewkd"])
def test_bfloat16_is_near_float32_and_evaluates_in_float32(method, teacher) -> None:
    results = []
    for precision in ("float32", "bfloat16"):
        training = training_of(method, teacher, choose_execution("cpu", 1, precision=precision))
        dtypes: list[torch.dtype] = []
        training.student.conv1.register_forward_hook(
            lambda _m, _i, out, dtypes=dtypes: dtypes.append(out.dtype)
        )
        sums = {k: v.item() for k, v in train(training, 2).items() if k.startswith("sums.loss")}
        training.evaluate()
        results.append((sums, dtypes))
    (full, _), (half, dtypes) = results
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert full != half
    for name, value in full.items():
        assert half[name] == pytest.approx(value, rel=0.03), name


def test_an_older_run_continues_in_the_plain_way(tmp_path: Path) -> None:
    """A run that started before there was a choice keeps its way of executing."""
    (tmp_path / "execution.json").write_text('{"device": "cpu", "threads": 1}')
    execution = load_execution(tmp_path)
    assert (execution.step, execution.precision, execution.teacher) == ("plain", "float32", "live")
    assert execution.threads == 1


LANES = [("student", 0), ("kd", 0), ("kd", 1), ("skd", 0)]
FEW = tiny.study(**{"recipe": {"epochs": 3, "milestones": [2]}})


def run_lanes(
    results: Path, lanes: int, runs: list[tuple[str, int]] = LANES, **options: Any
) -> dict[tuple[str, int], Record | Exception]:
    """Train runs in lanes; return each run's record or error."""
    store, materials = Store(results), Resources()
    node = FEW.teachers[0]
    teacher = store.teacher(node.id)
    train_teacher(node.spec, teacher, tiny.options(), "teacher")
    finished: dict[tuple[str, int], Record | Exception] = {}

    def work(run: tuple[str, int]) -> None:
        method, seed = run
        alone = method == "student"
        cell = FEW.cell("resnet8" if alone else tiny.PAIR, method)
        entry = store.run(cell.runs[seed])
        run_options = tiny.options(sharing=lanes, **options)
        run_teacher = None if alone else teacher
        try:
            finished[run] = complete_run(
                cell.run(seed), entry, run_options, f"{run}", run_teacher, materials
            )
        except DeviceFailedError:
            raise
        except RunFailedError as error:
            finished[run] = error

    run_in_lanes(work, runs, lanes)
    return finished


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    return {(m, s): tiny.numbers(tiny.run(FEW, folder, m, s)) for m, s in LANES}


@pytest.mark.parametrize("lanes", [2, 4])
def test_runs_side_by_side_are_the_same_runs_alone(tmp_path, alone, lanes: int) -> None:
    results = run_lanes(tmp_path, lanes)
    assert {run: tiny.numbers(record) for run, record in results.items()} == alone
    assert {record.execution["sharing"] for record in results.values()} == {lanes}


def test_a_lane_whose_loss_is_not_finite_leaves_and_the_others_stay(
    tmp_path, alone, monkeypatch
) -> None:
    from skd.losses.objective import Objective

    forward = Objective.forward

    def spoilt(self: Objective, batch: Any) -> Any:
        losses = forward(self, batch)
        if batch.draws.seed == 1:
            losses = replace(losses, total=losses.total * torch.inf)
        return losses

    monkeypatch.setattr(Objective, "forward", spoilt)
    results = run_lanes(tmp_path, 4)
    failed = results.pop(("kd", 1))
    assert isinstance(failed, RunFailedError)
    assert "not finite in epoch 1, step 1" in str(failed)
    assert Store(tmp_path).run(FEW.cell(tiny.PAIR, "kd").runs[1]).failure() is not None
    for run, record in results.items():
        assert tiny.numbers(record) == alone[run]


def test_stopped_lanes_save_and_continue(tmp_path, alone) -> None:
    calls: list[int] = []
    with pytest.raises(InterruptedRunError):
        run_lanes(tmp_path, 4, should_stop=lambda: bool(calls.append(1)) or len(calls) > 9)
    results = run_lanes(tmp_path, 4)
    assert {run: tiny.numbers(record) for run, record in results.items()} == alone
    assert max(record.cost.sessions for record in results.values()) == 2


def test_a_failing_device_ends_all_lanes_and_they_continue_later(
    tmp_path, alone, monkeypatch
) -> None:
    run_lanes(tmp_path, 1, [])  # the teacher
    started: list[str] = []

    def broken(training: Training) -> None:
        started.append(training.spec.network)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patched:
        patched.setattr(Training, "advance", broken)
        with pytest.raises(DeviceFailedError, match="illegal memory access"):
            run_lanes(tmp_path, 2)
    assert len(started) <= 3  # the others did not start
    note = Store(tmp_path).run(FEW.cell("resnet8", "student").runs[0]).failure()
    assert (note.kind, note.repeats) == ("AcceleratorError", False)
    results = run_lanes(tmp_path, 2)
    assert {run: tiny.numbers(record) for run, record in results.items()} == alone


def test_after_an_error_no_further_lane_is_started() -> None:
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        if item == 0:
            raise ArithmeticError("the first")
        time.sleep(0.001)  # otherwise the other lane may finish before this lane's error is noticed

    for lanes in (1, 2):
        started.clear()
        with pytest.raises(ArithmeticError, match="the first"):
            run_in_lanes(work, range(1000), lanes)
        assert len(started) < 1000
