"""The 3x3 kernels: their tables and layer, the choice of block sizes, and what only a GPU shows."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import typer
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from skd.cli import tune_kernels
from skd.kernels import candidates, tables, tuning
from skd.kernels.conv3x3 import conv3x3, conv3x3_weight_gradient
from skd.kernels.layers import KernelConv2d, is_eligible, use_kernels
from skd.kernels.tables import (
    DIRECTIONS,
    BlockSizes,
    ConvBlocks,
    ConvShape,
    KernelsError,
    KernelTable,
    TunedConv,
    find_table,
    load_table,
)
from skd.kernels.tuning import conv_shapes, require_writable, tune, write_table
from skd.models import build_model
from tests.builders.paths import ROOT

SHAPE = ConvShape(batch=64, in_channels=16, out_channels=32, height=9, width=7, stride=2)
ours = pytest.mark.skipif(not tables.has_triton(), reason="no triton here")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def entry(**other: Any) -> TunedConv:
    given = {
        "dtype": "float32",
        "direction": "forward",
        "shape": SHAPE,
        "blocks": BlockSizes(pixels=64, patch=32),
        "microseconds": 5.0,
        "cudnn_microseconds": 9.0,
    }
    return TunedConv(**given | other)


def table(*entries: TunedConv, **other: str) -> KernelTable:
    return KernelTable(
        **{"gpu": "NVIDIA H200", "torch": "2", "triton": "3"} | other, entries=entries
    )


# In a process of its own.


@ours
def test_in_tritons_interpreter() -> None:
    """All of interpreted_conv3x3.py: the interpreter is chosen for a whole process."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
            str(Path(__file__).with_name("interpreted_conv3x3.py")),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_triton_is_not_imported_before_a_kernel_runs() -> None:
    code = (
        "import sys, skd.kernels.layers, skd.kernels.tuning, skd.cli.tune_kernels\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_and_tables_import_no_torch() -> None:
    code = "import sys, skd.cli.tune_kernels, skd.kernels.candidates; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Tables.


def test_a_name_is_of_the_choices_not_of_the_times() -> None:
    first, second = entry(), entry(direction="weight_gradient")
    name = table(first, second).name
    assert name.startswith("nvidia-h200-")
    assert len(name) == len("nvidia-h200-") + 8
    assert table(second, first, torch="3").name == name
    assert table(entry(microseconds=8.7), entry(direction="weight_gradient")).name == name
    for other in (
        entry(blocks=BlockSizes(pixels=64, patch=32, warps=8)),
        entry(blocks=BlockSizes(pixels=32, patch=32)),
        entry(microseconds=8.9),
        entry(dtype="bfloat16"),
    ):
        assert table(other, second).name != name
    # What cuDNN computes has no blocks of ours.
    slower = {"microseconds": 10.0}
    changed = entry(**slower, blocks=BlockSizes(pixels=256, patch=16))
    assert table(second, entry(**slower)).name == table(second, changed).name


def test_a_name_is_of_the_kernels_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table(entry()).name
    monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
    assert table(entry()).name != before


def test_ours_is_used_only_where_it_was_measured_faster_by_the_margin() -> None:
    assert entry(microseconds=96.9, cudnn_microseconds=100.0).is_faster
    assert not entry(microseconds=97.0, cudnn_microseconds=100.0).is_faster
    blocks = BlockSizes(pixels=32, patch=64, chunks=8, warps=8, stages=3)
    found = table(
        entry(),
        entry(direction="input_gradient", microseconds=9.0),
        entry(direction="weight_gradient", blocks=blocks),
        entry(dtype="bfloat16", microseconds=10.0),
        entry(shape=SHAPE.model_copy(update={"in_channels": 3})),
    ).plans(16, 32, 2)
    assert found == {("float32", 64, 9, 7): ConvBlocks((64, 32, 1, 4, 1), (), (32, 64, 8, 8, 3))}


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": 8},
        {"patch": 48},
        {"pixels": 0},
        {"patch": -16},
        {"chunks": 0},
        {"chunks": tables.MAX_CHUNKS + 1},
        {"warps": 0},
        {"stages": 0},
    ],
    ids=str,
)
def test_blocks_that_no_kernel_has(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BlockSizes(**{"pixels": 16, "patch": 16} | wrong)


def test_blocks_as_ints_and_back() -> None:
    blocks = BlockSizes(pixels=32, patch=64, chunks=8, warps=2, stages=3)
    assert blocks.as_ints() == (32, 64, 8, 2, 3)
    assert BlockSizes.from_ints(blocks.as_ints()) == blocks
    with pytest.raises(ValueError, match="five block sizes"):
        BlockSizes.from_ints([32, 64])


def test_a_table_is_found_by_gpu_and_by_name(tmp_path: Path) -> None:
    made = table(entry(), entry(direction="weight_gradient"))
    assert find_table(made.gpu, tmp_path) is None
    path = write_table(made, tmp_path / "new")
    assert path.name == "nvidia-h200.yaml"
    if tables.has_triton():
        assert find_table("NVIDIA H200", path.parent) == made
        assert load_table(made.name, path.parent) == made
    assert find_table("NVIDIA H100 80GB HBM3", path.parent) is None


@ours
def test_an_unknown_name_is_told(tmp_path: Path) -> None:
    write_table(table(entry()), tmp_path)
    with pytest.raises(KernelsError) as refused:
        load_table("nvidia-h200-00000000", tmp_path)
    told = str(refused.value)
    assert "'nvidia-h200-00000000'" in told
    assert table(entry()).name in told
    assert "remove the run's folder" in told
    with pytest.raises(KernelsError, match="there is: none"):
        load_table("nvidia-h200-00000000", tmp_path / "none")


@ours
def test_a_broken_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "nvidia-h200.yaml").write_text("gpu: NVIDIA H200\n")
    with pytest.raises(KernelsError, match="make it anew: skd tune-kernels"):
        find_table("NVIDIA H200", tmp_path)


def test_without_triton_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(entry())
    write_table(made, tmp_path)
    monkeypatch.setattr(tables, "has_triton", lambda: False)
    assert find_table(made.gpu, tmp_path) is None
    with pytest.raises(KernelsError, match="need triton"):
        load_table(made.name, tmp_path)


def read_all(folder: Path) -> list[KernelTable]:
    """Read a folder's tables as training would, by GPU model and by name."""
    made = []
    for path in sorted(folder.glob("*.yaml")):
        made.append(tables.read_table(path))
        assert path.stem == tables.gpu_slug(made[-1].gpu)
        assert made[-1].name.startswith(f"{path.stem}-")
        assert made[-1].entries
    return made


def test_every_shipped_table_can_be_read(tmp_path: Path) -> None:
    """None may be shipped: so the check itself is tried with tables that are right and wrong."""
    read_all(tables.FOLDER)
    example = table(entry(), entry(direction="weight_gradient"))
    path = write_table(example, tmp_path)
    assert read_all(tmp_path) == [example]
    misnamed = path.rename(tmp_path / "nvidia-h100.yaml")
    with pytest.raises(AssertionError):
        read_all(tmp_path)
    misnamed.unlink()
    path.write_text("gpu: NVIDIA H200\n")
    with pytest.raises(KernelsError):
        read_all(tmp_path)


def test_a_table_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "tables"):
        for write in (require_writable, lambda folder: write_table(table(entry()), folder)):
            with pytest.raises(KernelsError, match=f"to {folder} .*--output"):
                write(folder)
    old = write_table(table(entry()), tmp_path)
    require_writable(tmp_path)
    before = old.read_text()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KernelsError, match=r"No space left.*--output"):
        write_table(table(entry(microseconds=1.0)), tmp_path)
    assert old.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"file", old.name}


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


# The layer.


def test_eligible_layers_are_replaced_and_share_their_parameters() -> None:
    network = build_model("resnet20", 10)
    before = {name: id(parameter) for name, parameter in network.named_parameters()}
    convs = sum(map(is_eligible, network.modules()))
    keys, drawn = list(network.state_dict()), torch.get_rng_state()
    assert use_kernels(network, table()) == convs == 19
    assert {name: id(parameter) for name, parameter in network.named_parameters()} == before
    assert list(network.state_dict()) == keys
    assert torch.equal(torch.get_rng_state(), drawn)
    assert use_kernels(network, table()) == 0
    build_model("resnet20", 10).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 1, "padding": 0},
        {"padding": 0},
        {"padding": "same"},
        {"stride": 3},
        {"stride": (1, 2)},
        {"dilation": 2},
        {"groups": 2},
        {"bias": True},
        {"padding_mode": "reflect"},
        {"out_channels": 66},
    ],
    ids=str,
)
def test_other_layers_are_left_alone(other: dict[str, Any]) -> None:
    usual = {"in_channels": 4, "out_channels": 64, "kernel_size": 3, "padding": 1, "bias": False}
    assert is_eligible(nn.Conv2d(**usual))
    assert not is_eligible(nn.Conv2d(**usual | other))
    assert not is_eligible(nn.Conv1d(4, 4, 3, padding=1, bias=False))


def test_the_layer_is_conv2d_where_no_kernel_can_run() -> None:
    """On a CPU, whatever the table says."""
    plain = nn.Conv2d(16, 32, 3, 2, 1, bias=False)
    own = KernelConv2d(plain.eval(), table(entry()))
    assert own.plans
    assert not own.training
    x = torch.randn(64, 16, 9, 7)
    torch.testing.assert_close(own(x), plain(x), rtol=0, atol=0)
    with pytest.raises(KernelsError, match="device, not cpu"):
        conv3x3(x, plain.weight, 2, "tf32", [64, 32, 1, 4, 1], [], [])


# The choice of block sizes.


def test_the_shapes_of_a_network() -> None:
    network = build_model("resnet20", 10)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = conv_shapes(network, 32, 64)
    assert [
        (s.batch, s.in_channels, s.out_channels, s.height, s.width, s.stride) for s in found
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
        found = candidates.candidates(direction, shape)
        assert found
        assert len(set(found)) == len(found) <= 100
        for blocks in found:
            assert {blocks.pixels, blocks.patch} <= {16, 32, 64, 128, 256}
            assert direction == "weight_gradient" or blocks.chunks == 1


def searched(
    errors: dict[int, float | None], times: dict[int, float | None], **options: Any
) -> tuple[int | None, list[int]]:
    """Search among blocks of so many pixels; None fails. Returns the winner and what was timed."""
    timed = []

    def measured(of: dict[int, float | None], blocks: BlockSizes) -> float:
        if of is times:
            timed.append(blocks.pixels)
        if of[blocks.pixels] is None:
            raise RuntimeError("out of shared memory")
        return of[blocks.pixels]

    found = candidates.find_fastest(
        [BlockSizes(pixels=pixels, patch=16) for pixels in errors],
        lambda blocks: measured(errors, blocks),
        lambda blocks: measured(times, blocks),
        **{"deadline": 100.0, "bound": 5e-3, "clock": lambda: 0.0} | options,
    )
    return found and found.blocks.pixels, timed


def test_the_fastest_right_candidate_is_taken() -> None:
    errors = {16: 1e-3, 32: 1e-3, 64: 1e-2, 128: None, 256: float("nan"), 512: 1e-3}
    times = {16: 4.0, 32: 3.0, 64: 1.0, 128: 1.0, 256: 1.0, 512: None}
    assert searched(errors, times) == (32, [16, 32, 512])
    assert searched(errors, times, workers=4) == (32, [16, 32, 512])
    assert searched(errors, times, bound=1e-4) == (None, [])
    assert searched({16: 0.0, 32: 0.0}, {16: 2.0, 32: 2.0})[0] == 16


def test_the_best_and_cudnn_are_measured_in_turn() -> None:
    order, clocks = [], {"ours": iter([5.0, 4.0, 6.0]), "cudnn": iter([9.0, 9.5, 7.0])}

    def time_of(name: str) -> float:
        order.append(name)
        return next(clocks[name])

    found = candidates.measure_alternately(lambda: time_of("ours"), lambda: time_of("cudnn"), 3)
    assert found == (4.0, 7.0)
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
    found = tuning._measured(Calls(), "forward", time.monotonic() + 60)
    assert set(candidates.candidates("forward", SHAPE)) < set(Calls.started)  # and None, cuDNN
    assert (found.microseconds, found.cudnn_microseconds) == (7.0, 7.0)
    assert not found.is_faster


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
        with pytest.raises(KernelsError, match="there is none here"):
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
    shown = console.export_text()
    assert "1.80x" in shown
    assert "input gradient" in shown
    assert "64 x 32, 1, 4, 1" in shown


# The compiler, which needs no GPU.


def test_no_kernel_adds_in_an_order_that_varies() -> None:
    """The bits are compared on a GPU: Triton's interpreter runs one program at a time."""
    source = (Path(tables.__file__).parent / "conv3x3_triton.py").read_text()
    assert "def weight_gradient_kernel(" in source
    assert "atomic" not in source


@ours
@pytest.mark.parametrize(("arch", "dtype"), [(80, "fp32"), (90, "bf16")])
def test_the_kernels_compile(
    arch: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from skd.kernels import conv3x3_triton as kernels

    sizes = {"H": 9, "W": 7, "OH": 5, "OW": 4, "C": 16, "K": 32, "STRIDE": 2}
    blocks = {"BLOCK_PIXELS": 64, "BLOCK_PATCH": 32, "PRECISION": "tf32", "UNROLL": False}
    constants = sizes | blocks | {"C_PADDED": 16, "K_PADDED": 32}
    for kernel in (
        kernels.forward_kernel,
        kernels.input_gradient_kernel,
        kernels.weight_gradient_kernel,
    ):
        types = dict.fromkeys(("x", "y", "dx", "dy", "weight"), f"*{dtype}") | {"parts": "*fp32"}
        types |= dict.fromkeys(("pixels", "images", "steps"), "i32")
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        own = {name: constants[name] for name in signature if name in constants}
        made = triton.compile(
            ASTSource(kernel, signature, own),
            target=GPUTarget("cuda", arch, 32),
            options={"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True},
        )
        assert "mma" in made.asm["ptx"]  # of tensor cores


# On a GPU.


def off(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@ours
@on_a_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [(64, 3, 16, 32, 1), (64, 16, 32, 32, 2), (64, 64, 64, 8, 1), (3, 5, 20, 7, 2)],
    ids=str,
)
def test_compiled_kernels(dtype: str, stages: int, shape: tuple[int, ...]) -> None:
    n, c, k, size, stride = shape
    torch.manual_seed(0)
    kind = {"device": "cuda", "dtype": getattr(torch, dtype)}
    x = torch.randn(n, c, size, size, **kind).requires_grad_()
    weight = torch.randn(k, c, 3, 3, **kind).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    y = F.conv2d(*exact, stride=stride, padding=1)
    grad = torch.randn(y.shape, **kind)
    wanted = (y, *torch.autograd.grad(y, exact, grad.double()))
    blocks = [64, 32, 32, 4, stages]
    rounds = []
    for _ in range(2):
        y = conv3x3(x, weight, stride, "tf32", blocks, blocks, blocks)
        rounds.append((y, *torch.autograd.grad(y, (x, weight), grad)))
    for got, again, right in zip(*rounds, wanted, strict=True):
        assert torch.equal(got, again)
        assert off(got, right) < candidates.MAX_ERRORS[dtype]
    if dtype == "float32":
        y = conv3x3(x, weight, stride, "ieee", blocks, blocks, blocks)
        assert off(y, wanted[0]) < 1e-6


@ours
@on_a_gpu
@pytest.mark.gpu
def test_kernels_can_be_recorded_and_started_by_threads() -> None:
    x, grad = torch.randn(64, 16, 16, 16, device="cuda"), torch.randn(64, 16, 16, 16, device="cuda")
    weight, blocks = torch.randn(16, 16, 3, 3, device="cuda"), [64, 32, 64, 4, 3]

    def gradient() -> Tensor:
        return conv3x3_weight_gradient(grad, x, weight, 1, "tf32", blocks)

    wanted, found = gradient(), []
    threads = [threading.Thread(target=lambda: found.append(gradient())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = gradient()
    graph.replay()
    assert len(found) == 4
    for each in (*found, recorded):
        assert torch.equal(each, wanted)


@ours
@on_a_gpu
@pytest.mark.gpu
def test_a_small_tuning_makes_a_table(tmp_path: Path) -> None:
    shapes = conv_shapes(build_model("resnet8"), 32, 64)[:2]
    told = []
    made = tune(shapes, ["float32"], "cuda", 20.0, lambda *news: told.append(news))
    assert len(made.entries) == 6
    assert told[-1][:2] == (6, 6)
    assert all(each.microseconds > 0.5 for each in made.entries)
    path = write_table(made, tmp_path)
    assert (
        find_table(torch.cuda.get_device_name(), tmp_path)
        == made
        == load_table(made.name, path.parent)
    )


@ours
@on_a_gpu
@pytest.mark.gpu
def test_a_network_by_the_kernels_is_about_that_by_cudnn() -> None:
    network = build_model("resnet8", 10).cuda().to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 32, 32, device="cuda")
    entries = [
        entry(direction=direction, shape=shape, blocks=BlockSizes(pixels=64, patch=32, chunks=16))
        for shape in conv_shapes(network, 32, 8)
        for direction in DIRECTIONS
    ]

    def gradients(step: nn.Module) -> list[Tensor]:
        loss = step(images).square().mean()
        return [loss, *torch.autograd.grad(loss, list(network.parameters()))]

    wanted = gradients(network)
    assert use_kernels(network, table(*entries)) == 7
    for step in (network, torch.compile(network, fullgraph=True)):
        for got, right in zip(gradients(step), wanted, strict=True):
            assert off(got, right.double()) < 5e-2  # TF32, through seven layers
