"""The 3x3 kernels in Triton's interpreter, on the CPU. test_conv3x3.py runs this in a process.

The interpreter is chosen when triton is first imported, for the whole process, so these tests
cannot be among the others.
"""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.kernels import tuning
from skd.kernels.conv3x3 import (
    _gradient_problem,
    conv3x3,
    conv3x3_input_gradient,
    conv3x3_weight_gradient,
)
from skd.kernels.layers import KernelConv2d, use_kernels
from skd.kernels.tables import (
    DIRECTIONS,
    BlockSizes,
    ConvShape,
    Direction,
    KernelsError,
    KernelTable,
    TunedConv,
)
from skd.kernels.tuning import conv_shapes
from skd.models import build_model
from skd.study.sheet import read_sheet
from skd.study.sheet_files import STUDIES_FOLDER

assert os.environ.get("TRITON_INTERPRET") == "1", "run tests/kernels/test_conv3x3.py"

BLOCKS = [64, 64, 2, 4, 1]
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 6e-3}  # one rounding of the output
LAST = torch.channels_last


def study_networks() -> list[str]:
    """Return the networks of all studies of CIFAR images, teachers and students."""
    networks = set()
    for path in STUDIES_FOLDER.glob("*.yaml"):
        sheet = read_sheet(path)
        if sheet.dataset.name.startswith("cifar"):
            networks |= {teacher.network or name for name, teacher in sheet.teachers.items()}
            networks |= {pair.student for pair in sheet.pairs}
    return sorted(networks)


def study_kinds() -> list[tuple[int, int, int]]:
    """Return channels in and out, and stride, of the studies' convolutions that are eligible."""
    kinds = set()
    with torch.device("meta"):
        for name in study_networks():
            kinds |= {
                (shape.in_channels, shape.out_channels, shape.stride)
                for shape in conv_shapes(build_model(name), 32, 1)
            }
    return sorted(kinds)


KINDS = study_kinds()


def data(n: int, c: int, k: int, h: int, w: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight = torch.randn(n, c, h, w), torch.randn(k, c, 3, 3)
    return tuple(t.to(dtype).to(memory_format=LAST).requires_grad_() for t in (x, weight))


def reference(x: Tensor, weight: Tensor, stride: int, grad: Tensor) -> tuple[Tensor, ...]:
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    y = F.conv2d(x, weight, stride=stride, padding=1)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad.double())


def off(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).norm() / wanted.norm()).item()


def check(
    shape: tuple[int, ...], stride: int, dtype: torch.dtype, blocks: list[int], parts: str = "yxw"
) -> None:
    x, weight = data(*shape, dtype)
    own = [blocks if part in parts else [] for part in "yxw"]
    y = conv3x3(x, weight, stride, "ieee", *own)
    grad = torch.randn(y.shape).to(dtype)  # not channels-last: autograd chooses the layout
    dx, dw = torch.autograd.grad(y, (x, weight), grad)
    for got, wanted in zip((y, dx, dw), reference(x, weight, stride, grad), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == dtype
        assert got.is_contiguous(memory_format=LAST)
        assert off(got, wanted) < BOUNDS[dtype]


def test_the_studies_convolutions_were_found() -> None:
    assert {"resnet20", "resnet32x4", "wrn_40_2", "MobileNetV2", "ResNet50"} <= {*study_networks()}
    stems = {(3, 16, 1), (3, 32, 1), (3, 16, 2), (3, 64, 1)}  # the last two: MobileNetV2, ResNet50
    assert stems | {(16, 32, 2), (64, 64, 1)} <= {*KINDS}


@pytest.mark.parametrize(("c", "k", "stride"), KINDS)
def test_convolutions_of_the_studies(c: int, k: int, stride: int) -> None:
    check((2, c, k, 8, 8), stride, torch.float32, BLOCKS)


@pytest.mark.parametrize(("c", "k", "stride"), [(3, 16, 1), (16, 16, 1), (16, 32, 2)])
def test_bfloat16(c: int, k: int, stride: int) -> None:
    check((2, c, k, 8, 8), stride, torch.bfloat16, BLOCKS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 16, 16, 7, 9),
        (3, 5, 7, 5, 4),
        (1, 20, 3, 6, 1),
        (2, 3, 5, 1, 6),
        (1, 1, 1, 1, 1),
        (1, 64, 1, 2, 3),
    ],
    ids=str,
)
def test_odd_sizes_and_channels(shape: tuple[int, ...], stride: int) -> None:
    check(shape, stride, torch.float32, [32, 32, 3, 4, 1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "blocks",
    [[16, 16, 1, 4, 1], [16, 64, 5, 8, 2], [128, 16, 2, 4, 3], [256, 128, 64, 4, 1]],
    ids=str,
)
def test_block_sizes(blocks: list[int], stride: int) -> None:
    check((2, 6, 17, 7, 5), stride, torch.float32, blocks)


@pytest.mark.parametrize("parts", ["", "y", "x", "w", "xw"])
def test_each_direction_is_ours_or_pytorchs(parts: str) -> None:
    check((2, 3, 16, 6, 6), 2, torch.float32, BLOCKS, parts)


@pytest.mark.parametrize("blocks", [BLOCKS, []], ids=["ours", "pytorchs"])
def test_opcheck(blocks: list[int]) -> None:
    x, weight = data(1, 3, 4, 4, 5, torch.float32)
    torch.library.opcheck(conv3x3, (x, weight, 2, "ieee", blocks, blocks, blocks))
    grad = torch.randn(1, 4, 2, 3).to(memory_format=LAST)
    for gradient in (conv3x3_input_gradient, conv3x3_weight_gradient):
        torch.library.opcheck(gradient, (grad, x.detach(), weight.detach(), 2, "ieee", blocks))


def test_a_frozen_input_has_no_gradient() -> None:
    x, weight = data(1, 3, 4, 4, 4, torch.float32)
    conv3x3(x.detach(), weight, 1, "ieee", BLOCKS, BLOCKS, BLOCKS).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("x", "weight", "stride", "precision", "blocks", "message"),
    [
        ((1, 3, 4, 4), (4, 5, 3, 3), 1, "tf32", BLOCKS, "not (1, 3, 4, 4) and (4, 5, 3, 3)"),
        ((3, 4, 4), (4, 3, 3, 3), 1, "tf32", BLOCKS, "not (3, 4, 4)"),
        ((1, 65, 2, 2), (4, 65, 3, 3), 1, "tf32", BLOCKS, "1 to 64 channels, not 65 and 4"),
        ((0, 3, 4, 4), (4, 3, 3, 3), 1, "tf32", BLOCKS, "maps of 1 to"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 3, "tf32", BLOCKS, "a stride of 1 or 2"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 1, "tf16", BLOCKS, "precision tf32 or ieee"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 1, "tf32", [64], "five block sizes, got [64]"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 1, "tf32", [48, 64, 1, 4, 1], "power of two of at least 16"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 1, "tf32", [64, 8, 1, 4, 1], "power of two of at least 16"),
        ((1, 3, 4, 4), (4, 3, 3, 3), 1, "tf32", [64, 64, 0, 4, 1], "greater than or equal to 1"),
    ],
)
def test_what_the_kernels_do_not_take(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: int,
    precision: str,
    blocks: list[int],
    message: str,
) -> None:
    with pytest.raises(KernelsError) as refused:
        conv3x3(torch.zeros(x), torch.zeros(weight), stride, precision, blocks, [], [])
    assert message in str(refused.value)


@pytest.mark.parametrize("gradient", [conv3x3_input_gradient, conv3x3_weight_gradient])
@pytest.mark.parametrize(
    "grad",
    [
        torch.zeros(2, 6, 5, 5),
        torch.zeros(2, 8, 5, 4),
        torch.zeros(1, 8, 5, 5),
        torch.zeros(8, 5, 5),
        torch.zeros(2, 8, 5, 5).double(),
    ],
    ids=lambda grad: f"{tuple(grad.shape)}, {grad.dtype}",
)
def test_gradients_that_the_kernels_do_not_take(gradient: Callable, grad: Tensor) -> None:
    x, weight = torch.zeros(2, 6, 5, 5), torch.zeros(8, 6, 3, 3)
    right = torch.zeros(2, 8, 5, 5)
    assert gradient(right, x, weight, 1, "ieee", BLOCKS).count_nonzero() == 0
    with pytest.raises(KernelsError, match=r"\(2, 8, 5, 5\), torch.float32, cpu, not "):
        gradient(grad, x, weight, 1, "ieee", BLOCKS)


def test_a_gradient_on_another_device() -> None:
    """Call the check directly: torch would dispatch the operator to "meta", the other device."""
    x, grad = torch.zeros(2, 6, 5, 5), torch.zeros(2, 8, 5, 5, device="meta")
    problem = _gradient_problem(grad, x, (2, 8, 5, 5))
    assert problem.endswith(
        "(2, 8, 5, 5), torch.float32, cpu, not (2, 8, 5, 5), torch.float32, meta"
    )


def test_types_that_the_kernels_do_not_take() -> None:
    x, weight = torch.zeros(1, 3, 4, 4).double(), torch.zeros(4, 3, 3, 3).double()
    for other in (weight, weight.float()):
        with pytest.raises(KernelsError, match="float32 or bfloat16, both the same"):
            conv3x3(x, other, 1, "tf32", BLOCKS, [], [])


def table(directions: tuple[str, ...] = DIRECTIONS) -> KernelTable:
    """Batches of two 8x8 images, 3 to 16 channels."""
    shape = ConvShape(batch=2, in_channels=3, out_channels=16, height=8, width=8, stride=1)
    times = {"microseconds": 1.0, "cudnn_microseconds": 2.0}
    entries = [
        TunedConv(
            dtype=dtype,
            direction=direction,
            shape=shape,
            blocks=BlockSizes(pixels=64, patch=32, chunks=2),
            **times,
        )
        for dtype in ("float32", "bfloat16")
        for direction in directions
    ]
    return KernelTable(gpu="Test GPU", torch="2", triton="3", entries=tuple(entries))


def layers(**options: tuple[str, ...]) -> tuple[nn.Conv2d, KernelConv2d]:
    torch.manual_seed(1)
    plain = nn.Conv2d(3, 16, 3, padding=1, bias=False).to(memory_format=LAST)
    return plain, KernelConv2d(plain, table(**options), "ieee")


def by_kernels(y: Tensor) -> bool:
    return "skd_conv3x3" in y.grad_fn.name()


def test_the_layer_uses_the_kernels_where_the_table_has_its_input() -> None:
    plain, own = layers()
    x = torch.randn(2, 3, 8, 8)
    assert by_kernels(own(x))
    torch.testing.assert_close(own(x), plain(x))
    for other in (x[:1], x[:, :, :7], x.double(), x[0]):
        own.to(other.dtype)
        assert not by_kernels(own(other))
        torch.testing.assert_close(own(other), own._conv_forward(other, own.weight, None))
    with pytest.raises(RuntimeError, match="expected input"):
        own.float()(torch.randn(2, 4, 8, 8))


def test_only_the_directions_of_the_table_are_ours() -> None:
    plain, own = layers(directions=("weight_gradient",))
    x = torch.randn(2, 3, 8, 8)
    assert own.blocks_by_input[("float32", 2, 8, 8)] == ((), (), (64, 32, 2, 4, 1))
    own(x).square().sum().backward()
    grad, plain.weight.grad = plain.weight.grad, None
    plain(x).square().sum().backward()
    torch.testing.assert_close(grad, plain.weight.grad)


def test_the_layer_under_autocast_does_as_conv2d() -> None:
    plain, own = layers()
    x = torch.randn(2, 3, 8, 8)
    grads = []
    for layer in (plain, own):
        plain.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        grads.append(plain.weight.grad)
    assert by_kernels(y)
    assert grads[1].dtype == torch.float32
    assert off(grads[1], grads[0].double()) < 2e-2
    with torch.autocast("cpu", torch.float16):  # the table has no such type
        assert own(x).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):  # autocast leaves float64 alone
        assert own.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("half", [False, True])
def test_the_compiler_sees_through_the_layer(half: bool) -> None:
    plain, own = layers()
    network = nn.Sequential(own, nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    x = torch.randn(2, 3, 8, 8).to(memory_format=LAST).requires_grad_()

    def gradients(step: nn.Module) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = step(x).float().square().sum()
        return [loss.detach(), *torch.autograd.grad(loss, [x, plain.weight])]

    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(network, backend=backend, fullgraph=True)
    for got, wanted in zip(gradients(compiled), gradients(network), strict=True):
        torch.testing.assert_close(got, wanted)
    assert any("conv3x3" in target for target in graphs)


def test_a_network_learns_the_same() -> None:
    network, other = (nn.Sequential(layers()[0], nn.ReLU(), nn.Flatten()) for _ in range(2))
    assert use_kernels(other, table(), "ieee") == 1
    other.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 8, 8)
    for each in (network, other):
        optimiser = torch.optim.SGD(each.parameters(), 0.01)
        for _ in range(3):
            optimiser.zero_grad()
            each(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(network.state_dict(), other.state_dict())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_direction_is_measured(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without a GPU's clock; the time is over, so there is one candidate."""
    times = iter([1.0, *(5.2, 7.0), *(5.004, 7.3), *(6.0, 8.0)])  # the first is the search's
    monkeypatch.setattr(tuning, "FINAL_ROUNDS", 3)
    monkeypatch.setattr(tuning, "measure_microseconds", lambda call: (call(), next(times))[1])
    shape = ConvShape(batch=2, in_channels=3, out_channels=16, height=7, width=5, stride=2)
    calls = tuning._ConvCalls(shape, "float32", torch.device("cpu"))
    tuned = tuning._tune_direction(calls, direction, deadline=0.0)
    assert (tuned.shape, tuned.dtype, tuned.direction) == (shape, "float32", direction)
    assert (tuned.microseconds, tuned.cudnn_microseconds) == (5.0, 7.0)
    assert next(times, None) is None
    assert calls.error(direction, tuned.blocks) < 1e-6
