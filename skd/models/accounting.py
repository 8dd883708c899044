"""The cost of a network: its parameters, their memory, its multiply-adds and activations."""

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
    """Counts over all images of the counted forward passes.

    Attributes:
        multiply_adds: of convolutions and linear layers, without their biases.
        activations: elements of the outputs of convolutions, normalisations and linear layers.
        layers: calls of such layers.
    """

    multiply_adds: int = 0
    activations: int = 0
    layers: int = 0


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, trained or frozen, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def memory_bytes(module: nn.Module) -> int:
    """Return the size of a module's parameters and buffers, in bytes."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode within the context; restore each submodule's mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def count_layers(model: nn.Module) -> Iterator[LayerCounts]:
    """Count the work of the model's layers in all forward passes within the context."""
    counts = LayerCounts()

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.layers += 1
        counts.activations += output.numel()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # A weight has shape (outputs, ...inputs of one output).
            counts.multiply_adds += output.numel() * math.prod(layer.weight.shape[1:])

    kinds = (nn.Conv2d, nn.Linear, *NORMALISATIONS)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def multiply_adds(model: nn.Module, input_shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Return the multiply-adds of one forward pass on one image.

    Following the usual convention, only convolutions and linear layers count, without their biases.
    The model's weights, buffers and training mode do not change.

    Args:
        model: any module that takes a batch of images.
        input_shape: (channels, height, width) of the image.
    """
    weight = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=weight.device, dtype=weight.dtype)
    with evaluating(model), torch.no_grad(), count_layers(model) as counts:
        model(image)
    return counts.multiply_adds
