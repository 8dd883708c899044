"""What a network costs: its parameters, their memory, its multiply-adds and activations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass
class LayerCounts:
    """What forward passes did, on all their images together.

    Attributes:
        multiply_adds: of convolutions and linear layers, their biases not counted.
        activations: elements of the outputs of convolutions, normalisations and linear layers.
        layers: calls of such layers.
    """

    multiply_adds: int = 0
    activations: int = 0
    layers: int = 0


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


@contextmanager
def count_layers(model: nn.Module) -> Iterator[LayerCounts]:
    """Count what the model's layers do while the context is open."""
    work = LayerCounts()

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work.layers += 1
        work.activations += output.numel()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # A weight is (outputs, ...inputs of one output): for a conv, in / groups and kernel.
            work.multiply_adds += output.numel() * math.prod(layer.weight.shape[1:])

    kinds = (nn.Conv2d, nn.Linear, *NORMALISATIONS)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield work
    finally:
        for hook in hooks:
            hook.remove()


def multiply_adds(model: nn.Module, input_shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Return the multiply-adds of one forward pass on one image, by a dry pass.

    Convolutions and linear layers count, their biases, normalisation, activations and pooling do
    not: the field's convention. The model's weights, buffers and training mode stay as they are.

    Args:
        model: any module that takes a batch of images.
        input_shape: (channels, height, width) of the image.
    """
    weight = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=weight.device, dtype=weight.dtype)
    with _evaluating(model), torch.no_grad(), count_layers(model) as work:
        model(image)
    return work.multiply_adds
