"""Tuning the kernels: shapes, candidates, measurements and the table that it writes."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from skd.cli import tune_kernels
from skd.kernels import candidates, tables, tuning
from skd.kernels.tables import (
    DIRECTIONS,
    BlockSizes,
    ConvShape,
    KernelsError,
    find_table,
    load_table,
)
from skd.kernels.tuning import conv_shapes, tune, write_table
from skd.models import build_model
from tests.builders.kernels import SHAPE, entry, needs_gpu, needs_triton, read_all, table


@pytest.mark.parametrize("writable", [True, False])
def test_nothing_is_tuned_where_nothing_can_be_written(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tuning, "tune", lambda *given: tuned.append(given) or table(entry()))
    folder = tmp_path / "new"
    if not writable:
        folder.touch()
    app = typer.Typer()
    app.command()(tune_kernels.tune_kernels)
    done = CliRunner().invoke(app, ["--network", "resnet8", "--output", str(folder)])
    assert len(tuned) == writable
    if writable:
        assert done.exception is None
        assert read_all(folder) == [table(entry())]
    else:
        assert isinstance(done.exception, KernelsError)


# The choice of block sizes.


def test_the_shapes_of_a_network() -> None:
    network = build_model("resnet20", 10)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shapes = conv_shapes(network, 32, 64)
    assert [
        (s.batch, s.in_channels, s.out_channels, s.height, s.width, s.stride) for s in shapes
    ] == [
        (64, 3, 16, 32, 32, 1),
        (64, 16, 16, 32, 32, 1),
        (64, 16, 32, 32, 32, 2),
        (64, 32, 32, 16, 16, 1),
        (64, 32, 64, 16, 16, 2),
        (64, 64, 64, 8, 8, 1),
    ]
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    assert conv_shapes(build_model("vgg8"), 32, 1) == []  # its convolutions have a bias
    assert network.training


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("batch", [1, 64])
def test_candidates_are_distinct_and_whole(direction: tables.Direction, batch: int) -> None:
    for c, k, size, stride in [(3, 16, 32, 1), (16, 32, 32, 2), (64, 64, 8, 1), (1, 5, 1, 2)]:
        shape = ConvShape(
            batch=batch, in_channels=c, out_channels=k, height=size, width=size, stride=stride
        )
        possible = candidates.candidates(direction, shape)
        assert possible
        assert len(set(possible)) == len(possible) <= 100
        for blocks in possible:
            assert {blocks.pixels, blocks.patch} <= {16, 32, 64, 128, 256}
            assert direction == "weight_gradient" or blocks.chunks == 1


def searched(
    errors: dict[int, float | None], times: dict[int, float | None], **options: Any
) -> tuple[int | None, list[int]]:
    """Search among numbers of pixels (None fails); return the winner and the timed ones."""
    timed = []

    def measured(of: dict[int, float | None], blocks: BlockSizes) -> float:
        if of is times:
            timed.append(blocks.pixels)
        if of[blocks.pixels] is None:
            raise RuntimeError("out of shared memory")
        return of[blocks.pixels]

    winner = candidates.find_fastest(
        [BlockSizes(pixels=pixels, patch=16) for pixels in errors],
        lambda blocks: measured(errors, blocks),
        lambda blocks: measured(times, blocks),
        **{"deadline": 100.0, "max_error": 5e-3, "clock": lambda: 0.0} | options,
    )
    return winner and winner.blocks.pixels, timed


def test_the_fastest_right_candidate_is_taken() -> None:
    errors = {16: 1e-3, 32: 1e-3, 64: 1e-2, 128: None, 256: float("nan"), 512: 1e-3}
    times = {16: 4.0, 32: 3.0, 64: 1.0, 128: 1.0, 256: 1.0, 512: None}
    assert searched(errors, times) == (32, [16, 32, 512])
    assert searched(errors, times, workers=4) == (32, [16, 32, 512])
    assert searched(errors, times, max_error=1e-4) == (None, [])
    assert searched({16: 0.0, 32: 0.0}, {16: 2.0, 32: 2.0})[0] == 16


def test_the_best_and_cudnn_are_measured_in_turn() -> None:
    order, clocks = [], {"ours": iter([5.0, 4.0, 6.0]), "cudnn": iter([9.0, 9.5, 7.0])}

    def time_of(name: str) -> float:
        order.append(name)
        return next(clocks[name])

    best = candidates.measure_alternately(lambda: time_of("ours"), lambda: time_of("cudnn"), 3)
    assert best == (4.0, 7.0)
    assert order == ["ours", "cudnn"] * 3


def test_a_candidate_that_was_lucky_once_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Calls:
        shape, dtype = SHAPE, "float32"
        started: ClassVar[list[BlockSizes | None]] = []

        def call(self, direction: tables.Direction, blocks: BlockSizes | None) -> float:
            lucky = blocks is not None and blocks not in self.started
            self.started.append(blocks)
            return 5.0 if lucky else 7.0

        def error(self, direction: tables.Direction, blocks: BlockSizes) -> float:
            return 0.0

    monkeypatch.setattr(tuning, "measure_microseconds", lambda call: call())
    tuned = tuning._tune_direction(Calls(), "forward", time.monotonic() + 60)
    assert set(candidates.candidates("forward", SHAPE)) < set(Calls.started)  # and None for cuDNN
    assert (tuned.microseconds, tuned.cudnn_microseconds) == (7.0, 7.0)
    assert not tuned.is_faster


def test_when_the_time_is_over_only_the_first_is_tried() -> None:
    errors, times = {16: 0.0, 32: 0.0}, {16: 4.0, 32: 3.0}
    assert searched(errors, times, clock=lambda: 101.0) == (16, [16])


def test_a_broken_device_ends_the_search() -> None:
    def broken(blocks: BlockSizes) -> float:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    with pytest.raises(torch.AcceleratorError):
        candidates.find_fastest(
            [BlockSizes(pixels=16, patch=16)], broken, broken, 1.0, max_error=1.0
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_tuning_needs_a_gpu() -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(KernelsError, match="this machine has none"):
            tune([SHAPE], ["float32"], device, 1.0)
    app = typer.Typer()
    app.command()(tune_kernels.tune_kernels)
    done = CliRunner().invoke(app, ["--minutes", "0"])
    assert isinstance(done.exception, KernelsError)
    assert "torch finds none here" in str(done.exception)


def test_results_are_shown() -> None:
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(
        tune_kernels.results_table(
            table(entry(), entry(direction="input_gradient", microseconds=10))
        )
    )
    output = console.export_text()
    assert "1.80x" in output
    assert "input gradient" in output
    assert "64 x 32, 1, 4, 1" in output


@needs_triton
@needs_gpu
@pytest.mark.gpu
def test_a_small_tuning_makes_a_table(tmp_path: Path) -> None:
    shapes = conv_shapes(build_model("resnet8"), 32, 64)[:2]
    reports = []
    tuned = tune(shapes, ["float32"], "cuda", 20.0, lambda *news: reports.append(news))
    assert len(tuned.entries) == 6
    assert reports[-1][:2] == (6, 6)
    assert all(each.microseconds > 0.5 for each in tuned.entries)
    path = write_table(tuned, tmp_path)
    assert (
        find_table(torch.cuda.get_device_name(), tmp_path)
        == tuned
        == load_table(tuned.name, path.parent)
    )
