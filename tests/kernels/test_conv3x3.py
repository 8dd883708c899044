"""The 3x3 kernels: their tables and layer, the choice of block sizes, and what only a GPU shows."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.kernels import candidates, tables
from skd.kernels.conv3x3 import conv3x3, conv3x3_weight_gradient
from skd.kernels.layers import KernelConv2d, is_eligible, use_kernels
from skd.kernels.tables import (
    DIRECTIONS,
    BlockSizes,
    KernelsError,
)
from skd.kernels.tuning import conv_shapes
from skd.models import build_model
from tests.builders.kernels import entry, needs_gpu, needs_triton, table
from tests.builders.paths import ROOT

# In a separate process.


@needs_triton
def test_in_tritons_interpreter() -> None:
    """Run interpreted_conv3x3.py in a process, because the interpreter is chosen per process."""
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
    """On a CPU the layer is PyTorch's, whatever the table contains."""
    plain = nn.Conv2d(16, 32, 3, 2, 1, bias=False)
    own = KernelConv2d(plain.eval(), table(entry()))
    assert own.blocks_by_input
    assert not own.training
    x = torch.randn(64, 16, 9, 7)
    torch.testing.assert_close(own(x), plain(x), rtol=0, atol=0)
    with pytest.raises(KernelsError, match="device, not cpu"):
        conv3x3(x, plain.weight, 2, "tf32", [64, 32, 1, 4, 1], [], [])


# The compiler, which needs no GPU.


def test_no_kernel_adds_in_an_order_that_varies() -> None:
    """The bits are compared on a GPU: Triton's interpreter runs one program at a time."""
    source = (Path(tables.__file__).parent / "conv3x3_triton.py").read_text()
    assert "def weight_gradient_kernel(" in source
    assert "atomic" not in source


@needs_triton
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
        compiled = triton.compile(
            ASTSource(kernel, signature, own),
            target=GPUTarget("cuda", arch, 32),
            options={"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True},
        )
        assert "mma" in compiled.asm["ptx"]  # of tensor cores


# On a GPU.


def off(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@needs_triton
@needs_gpu
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


@needs_triton
@needs_gpu
@pytest.mark.gpu
def test_kernels_can_be_recorded_and_started_by_threads() -> None:
    x, grad = torch.randn(64, 16, 16, 16, device="cuda"), torch.randn(64, 16, 16, 16, device="cuda")
    weight, blocks = torch.randn(16, 16, 3, 3, device="cuda"), [64, 32, 64, 4, 3]

    def gradient() -> Tensor:
        return conv3x3_weight_gradient(grad, x, weight, 1, "tf32", blocks)

    expected, gradients = gradient(), []
    threads = [threading.Thread(target=lambda: gradients.append(gradient())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = gradient()
    graph.replay()
    assert len(gradients) == 4
    for each in (*gradients, recorded):
        assert torch.equal(each, expected)


@needs_triton
@needs_gpu
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
