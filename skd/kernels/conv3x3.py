"""The operator `skd::conv3x3`: a 3x3 convolution with padding 1, by these kernels or by cuDNN.

Block sizes are an argument for each of its three directions (output, input gradient, weight
gradient). An empty list selects PyTorch's convolution, which is cuDNN's on a GPU. `torch.compile`
sees three opaque operators and the shapes of their results.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from skd.kernels.tables import BlockSizes, KernelsError, require_triton

MAX_CHANNELS = 64  # of input and output
PRECISIONS = ("tf32", "ieee")
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ("cuda", "cpu") if _INTERPRETED else ("cuda",)  # types that the kernels run on


@torch.library.custom_op("skd::conv3x3", mutates_args=())
def conv3x3(
    x: Tensor,
    weight: Tensor,
    stride: int,
    precision: str,
    forward: Sequence[int],
    input_gradient: Sequence[int],
    weight_gradient: Sequence[int],
) -> Tensor:
    """Convolve (N, C, H, W) with (K, C, 3, 3), padding 1; returns (N, K, OH, OW), channels-last.

    Args:
        x: float32 or bfloat16. Copied if it is not channels-last.
        weight: of the same dtype.
        stride: 1 or 2.
        precision: how our kernels multiply. "tf32": float32 as TF32, bfloat16 as bfloat16; "ieee":
            both as float32, slowly. cuDNN uses torch's setting. Sums are always float32.
        forward: block sizes (`skd.kernels.tables.BlockSizes.as_ints`), or an empty list for cuDNN.
        input_gradient: the same for the gradient with respect to `x`.
        weight_gradient: the same for the gradient with respect to `weight`, in its dtype.

    Raises:
        KernelsError: our kernels do not support a shape, dtype, device, precision or block size, or
            triton is not installed. Not raised for directions that cuDNN computes.
    """
    if not forward:
        # The caller has cast its input already; the dtype must be that of the fake implementation.
        with torch.autocast(x.device.type, enabled=False):
            y = torch.ops.aten.convolution.default(x, weight, None, *_geometry(stride))
        return _channels_last(y)
    launching = _launching(x, weight, stride, precision, forward)
    return launching.forward(_channels_last(x), _channels_last(weight), stride, precision, forward)


@torch.library.custom_op("skd::conv3x3_input_gradient", mutates_args=())
def conv3x3_input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, precision: str, blocks: Sequence[int]
) -> Tensor:
    """Return the input gradient of `conv3x3`, (N, C, H, W), channels-last.

    `grad` has the shape, dtype and device of the output. Raises what `conv3x3` does.
    """
    if not blocks:
        return _channels_last(_backward(grad, x, weight, stride, 0))
    launching = _launching(x, weight, stride, precision, blocks, grad)
    grad, weight = _channels_last(grad), _channels_last(weight)
    return launching.input_gradient(grad, x, weight, stride, precision, blocks)


@torch.library.custom_op("skd::conv3x3_weight_gradient", mutates_args=())
def conv3x3_weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, precision: str, blocks: Sequence[int]
) -> Tensor:
    """Return the weight gradient of `conv3x3`, (K, C, 3, 3), channels-last.

    `grad` has the shape, dtype and device of the output. Raises what `conv3x3` does.
    """
    if not blocks:
        return _channels_last(_backward(grad, x, weight, stride, 1))
    launching = _launching(x, weight, stride, precision, blocks, grad)
    grad, x = _channels_last(grad), _channels_last(x)
    return launching.weight_gradient(grad, x, weight, stride, precision, blocks)


@conv3x3.register_fake
def _(x, weight, stride, precision, forward, input_gradient, weight_gradient):  # noqa: ANN202
    shape = _output_shape(x, weight, stride)
    return torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)


@conv3x3_input_gradient.register_fake
def _(grad, x, weight, stride, precision, blocks):  # noqa: ANN202
    return torch.empty_like(x, memory_format=torch.channels_last)


@conv3x3_weight_gradient.register_fake
def _(grad, x, weight, stride, precision, blocks):  # noqa: ANN202
    return torch.empty_like(weight, memory_format=torch.channels_last)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, ctx.stride, ctx.precision, _, ctx.input_gradient, ctx.weight_gradient = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = conv3x3_input_gradient(grad, x, weight, ctx.stride, ctx.precision, ctx.input_gradient)
    if ctx.needs_input_grad[1]:
        dw = conv3x3_weight_gradient(
            grad, x, weight, ctx.stride, ctx.precision, ctx.weight_gradient
        )
    return dx, dw, None, None, None, None, None


conv3x3.register_autograd(_differentiate, setup_context=_setup_context)


def _output_shape(x: Tensor, weight: Tensor, stride: int) -> tuple[int, ...]:
    n, _, h, w = x.shape
    return n, len(weight), (h - 1) // stride + 1, (w - 1) // stride + 1


def _geometry(stride: int) -> tuple[object, ...]:
    """Return stride, padding, dilation, transposed, output padding and groups, for aten."""
    return [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, argument: int) -> Tensor:
    """Return PyTorch's gradient with respect to the input (`argument` 0) or the weight (1)."""
    mask = [argument == 0, argument == 1, False]
    return torch.ops.aten.convolution_backward.default(
        grad, x, weight, None, *_geometry(stride), mask
    )[argument]


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _launching(
    x: Tensor,
    weight: Tensor,
    stride: int,
    precision: str,
    blocks: Sequence[int],
    grad: Tensor | None = None,
) -> ModuleType:
    """Check the arguments and return the module that launches the kernels.

    The kernels do not check them: with a wrong shape they would read out of bounds.
    """
    problem = _argument_problem(x, weight, stride, precision)
    if grad is not None:
        problem = problem or _gradient_problem(grad, x, _output_shape(x, weight, stride))
    if problem:
        raise KernelsError(f"the 3x3 kernels take {problem}")
    try:
        BlockSizes.from_ints(blocks)
    except ValueError as error:
        raise KernelsError(f"the 3x3 kernels cannot take these block sizes: {error}") from error
    require_triton()
    from skd.kernels import launching

    return launching


def _argument_problem(x: Tensor, weight: Tensor, stride: int, precision: str) -> str | None:
    """Return what is wrong with the arguments, or ``None``."""
    if x.dim() != 4 or tuple(weight.shape) != (len(weight), x.shape[1], 3, 3):
        return f"(N, C, H, W) and (K, C, 3, 3), not {tuple(x.shape)} and {tuple(weight.shape)}"
    (n, c, h, w), k = x.shape, len(weight)
    if not (min(c, k) >= 1 and max(c, k) <= MAX_CHANNELS):
        return f"1 to {MAX_CHANNELS} channels, not {c} and {k}"
    if not 1 <= n * h * w * max(c, k) < 2**31:
        return f"maps of 1 to 2 ** 31 - 1 elements, not {tuple(x.shape)}"
    if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16):
        return f"float32 or bfloat16, both the same, not {x.dtype} and {weight.dtype}"
    if x.device != weight.device or x.device.type not in DEVICES:
        return f"tensors on one {' or '.join(DEVICES)} device, not {x.device} and {weight.device}"
    if stride not in (1, 2) or precision not in PRECISIONS:
        return (
            f"a stride of 1 or 2 and the precision {' or '.join(PRECISIONS)}, "
            f"not {stride} and {precision}"
        )
    return None


def _gradient_problem(grad: Tensor, x: Tensor, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with the gradient of an output of this shape, or ``None``."""
    expected, given = (shape, x.dtype, x.device), (tuple(grad.shape), grad.dtype, grad.device)
    if given == expected:
        return None
    texts = (", ".join(map(str, values)) for values in (expected, given))
    return "a gradient of the output's shape, dtype and device: {}, not {}".format(*texts)
