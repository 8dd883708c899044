"""What a network costs: its parameters, their memory, and its multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trained or frozen; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def memory_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in eval mode, and give each submodule its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def multiply_adds(model: nn.Module, input_shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Return the multiply-adds of one forward pass on one image, by a dry pass.

    Convolutions and linear layers count, their biases, normalisation, activations and pooling do
    not: the field's convention. The model's weights, buffers and training mode stay as they are.

    Args:
        model: any module that takes a batch of images.
        input_shape: (channels, height, width) of the image.
    """
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        # A weight is (outputs, ...inputs of one output): for a conv, in / groups and the kernel.
        total += output.numel() * math.prod(layer.weight.shape[1:])

    counted = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in counted]
    weight = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=weight.device, dtype=weight.dtype)
    try:
        with _evaluating(model), torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return total
