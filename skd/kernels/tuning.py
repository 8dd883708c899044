"""Measure the kernels against cuDNN on a GPU and write its table."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from skd.common.files import write_atomically
from skd.kernels import candidates
from skd.kernels.conv3x3 import conv3x3, conv3x3_input_gradient, conv3x3_weight_gradient
from skd.kernels.layers import is_eligible
from skd.kernels.tables import (
    DIRECTIONS,
    BlockSizes,
    ConvShape,
    Direction,
    Dtype,
    KernelsError,
    KernelTable,
    TunedConv,
    gpu_slug,
    require_triton,
)

CALLS, ROUNDS, WARM_UPS = 20, 5, 3
FINAL_ROUNDS = 5  # of measuring cuDNN and the best candidate in turn
COMPILERS = 16  # threads, at most


def conv_shapes(network: nn.Module, image_size: int, batch: int) -> list[ConvShape]:
    """Return the distinct shapes of a network's convolutions that the kernels can compute.

    Nothing is computed: a copy of the network runs on the meta device.

    Args:
        network: takes (batch, 3, image_size, image_size).
        image_size: height and width of the images, in pixels.
        batch: images of a training step.
    """
    shapes: dict[ConvShape, None] = {}

    def add_shape(layer: nn.Conv2d, inputs: tuple[Tensor, ...], _: object) -> None:
        n, c, h, w = inputs[0].shape
        shape = ConvShape(
            batch=n,
            in_channels=c,
            out_channels=layer.out_channels,
            height=h,
            width=w,
            stride=layer.stride[0],
        )
        shapes[shape] = None

    meta = copy.deepcopy(network).to("meta").eval()  # in training, BatchNorm rejects one value
    for module in meta.modules():
        if is_eligible(module):
            module.register_forward_hook(add_shape)
    with torch.no_grad():
        meta(torch.empty(batch, 3, image_size, image_size, device="meta"))
    return list(shapes)


def tune(
    shapes: Iterable[ConvShape],
    dtypes: Sequence[Dtype],
    device: torch.device | str,
    seconds: float,
    on_progress: Callable[[int, int, str], None] = lambda done, total, description: None,
) -> KernelTable:
    """Measure the candidates for each convolution, and the fastest of them against cuDNN.

    The measurements use deterministic mode, as in training. float32 is multiplied as TF32.

    Args:
        shapes: shapes of the convolutions.
        dtypes: dtypes to measure each shape with.
        device: an otherwise idle CUDA device.
        seconds: time to spend, roughly. After this time, only one candidate is tried for each
            remaining direction.
        on_progress: called with the number of finished directions, their total number and a
            description of the next one.

    Raises:
        KernelsError: there is no CUDA device, or triton is not installed.
    """
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise KernelsError(
            "the kernels are measured on a CUDA device, and this machine has none; use a machine "
            "with a GPU"
        )
    require_triton()
    import triton

    cases = list(product(dict.fromkeys(shapes), dtypes))
    total, entries, end = len(cases) * len(DIRECTIONS), [], time.monotonic() + seconds
    done = 0
    with torch.cuda.device(device), torch.no_grad(), _training_cudnn_settings():
        for shape, dtype in cases:
            calls = _ConvCalls(shape, dtype, device)
            for direction in DIRECTIONS:
                on_progress(done, total, f"{describe_shape(shape)} {dtype} {direction}")
                now = time.monotonic()
                deadline = now + max(0.0, end - now) / (total - done)
                entry = _tune_direction(calls, direction, deadline)
                entries += [entry] if entry else []
                done += 1
            del calls
        on_progress(done, total, "done")
        gpu = torch.cuda.get_device_name(device)
    return KernelTable(
        gpu=gpu, torch=torch.__version__, triton=triton.__version__, entries=tuple(entries)
    )


def require_writable(folder: Path) -> None:
    """Raise a KernelsError if no file can be written to a folder; create a missing folder."""
    with _explain_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass


def write_table(table: KernelTable, folder: Path) -> Path:
    """Write a table to the file that `skd.kernels.tables.find_table` reads; return its path.

    Raises:
        KernelsError: it cannot be written. An existing table stays as it was.
    """
    path = folder / f"{gpu_slug(table.gpu)}.yaml"
    head = "# Made by `skd tune-kernels`; see README.md. Times in microseconds.\n"
    data = table.model_dump(mode="json")
    text = head + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=98)
    with _explain_unwritable(folder):
        write_atomically(path, text.encode())
    return path


@contextmanager
def _explain_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelsError(
            f"the table cannot be written to {folder} ({error.strerror or error}): name another "
            "folder with --output"
        ) from error


def describe_shape(shape: ConvShape) -> str:
    """Return a short description of a shape."""
    layer = f"{shape.in_channels}→{shape.out_channels} at {shape.height}x{shape.width}"
    return f"{layer} by {shape.batch}{' stride 2' if shape.stride == 2 else ''}"


class _ConvCalls:
    """The three directions of one convolution with random data, and float64 references."""

    def __init__(self, shape: ConvShape, dtype: Dtype, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*size: int) -> Tensor:
            values = torch.randn(size, generator=generator, device=device)
            return values.to(getattr(torch, dtype)).contiguous(memory_format=torch.channels_last)

        c, k = shape.in_channels, shape.out_channels
        self.stride, self.dtype, self.shape = shape.stride, dtype, shape
        self.x = normal(shape.batch, c, shape.height, shape.width)
        self.weight = normal(k, c, 3, 3)
        x, weight = (t.double().contiguous().requires_grad_() for t in (self.x, self.weight))
        with torch.enable_grad():
            y = nn.functional.conv2d(x, weight, stride=self.stride, padding=1)
        self.grad = normal(*y.shape)
        dx, dw = torch.autograd.grad(y, (x, weight), self.grad.double())
        self._references = dict(zip(DIRECTIONS, (y.detach(), dx, dw), strict=True))

    def call(self, direction: Direction, blocks: BlockSizes | None) -> Tensor:
        """Compute a direction with our kernel, or with cuDNN if `blocks` is ``None``."""
        ints = list(blocks.as_ints()) if blocks else []
        if direction == "forward":
            return conv3x3(self.x, self.weight, self.stride, "tf32", ints, [], [])
        if direction == "input_gradient":
            gradient = conv3x3_input_gradient
        else:
            gradient = conv3x3_weight_gradient
        return gradient(self.grad, self.x, self.weight, self.stride, "tf32", ints)

    def error(self, direction: Direction, blocks: BlockSizes) -> float:
        """Return the relative error of our kernel."""
        reference = self._references[direction]
        with torch.no_grad():  # the setting is per thread
            difference = self.call(direction, blocks).double() - reference
            return (difference.norm() / reference.norm()).item()


def _tune_direction(calls: _ConvCalls, direction: Direction, deadline: float) -> TunedConv | None:
    def time_of(blocks: BlockSizes | None) -> float:
        return measure_microseconds(lambda: calls.call(direction, blocks))

    best = candidates.find_fastest(
        candidates.candidates(direction, calls.shape),
        lambda blocks: calls.error(direction, blocks),
        time_of,
        deadline,
        max_error=candidates.MAX_ERRORS[calls.dtype],
        workers=min(COMPILERS, os.cpu_count() or 1),
    )
    if best is None:
        return None
    ours, cudnn = candidates.measure_alternately(
        lambda: time_of(best.blocks), lambda: time_of(None), FINAL_ROUNDS
    )
    return TunedConv(
        dtype=calls.dtype,
        direction=direction,
        shape=calls.shape,
        blocks=best.blocks,
        microseconds=round(ours, 2),
        cudnn_microseconds=round(cudnn, 2),
    )


def measure_microseconds(call: Callable[[], Tensor]) -> float:
    """Return the GPU time of a call: the minimum over several replays of a CUDA graph of calls.

    As in a recorded training step, no Python runs between the kernels of a replay.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(CALLS):
                call()
        graph.replay()
        times = []
        for _ in range(ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(1000 * begin.elapsed_time(end) / CALLS)
    return min(times)


@contextmanager
def _training_cudnn_settings() -> Iterator[None]:
    """Apply the training's settings of cuDNN: deterministic algorithms, without autotuning."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = before[2]
