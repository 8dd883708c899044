"""Networks for a loop of one's own: those of this project, and any other module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skd.common.errors import UnfitError
from skd.models import FeatureNetwork, build_model
from skd.models.accounting import evaluating
from skd.models.network import Outputs
from skd.models.wrapped import LibraryNetwork
from skd.training.network_loading import build_from_state_dict
from skd.training.state_dicts import read_state_dict

ADVICE = (
    "use a network of `skd.library.network`, or name its stages with `skd.library.with_features`"
)


def network(name: str, num_classes: int = 100) -> FeatureNetwork:
    """Return a new network with fresh weights, drawn from torch's global generator.

    Raises:
        BrokenFileError, UnknownNameError: as `skd.models.build_model`.
        ValueError: num_classes is below 1.
    """
    return build_model(name, num_classes)


def load_network(path: str | Path, name: str, num_classes: int = 100) -> FeatureNetwork:
    """Return a network with the weights of a checkpoint: of `skd export`, or one of the field's.

    No code in the file is run. Keys and shapes must fit exactly, after a prefix that all keys share
    is removed.

    Args:
        path: a .pth, .pt or .safetensors file.
        name: one of `network_names()`.
        num_classes: number of logits.

    Raises:
        TeacherError: the file cannot be read, or does not fit the network; says why.
        BrokenFileError, UnknownNameError: as `network`.
    """
    weights = read_state_dict(Path(path))
    return build_from_state_dict(name, num_classes, weights, what=str(path))


def with_features(module: nn.Module, stages: Sequence[str]) -> FeatureNetwork:
    """Return a module of any library as a network that also gives feature maps.

    The module runs as it is, with its weights, and its state dict keeps its keys. The pooled
    feature is the input of its last linear layer. There are no pre-activations.

    Args:
        module: maps images to logits (B, C).
        stages: names of modules within it whose outputs are maps (B, C, H, W), the stem's first.

    Raises:
        WrapError: a stage is not a module, or there is no linear layer.
    """
    return LibraryNetwork(module, tuple(stages))


def forward_outputs(module: nn.Module, images: Tensor, role: str, method: str) -> Outputs:
    """Return the outputs of a network, or of any module that returns logits.

    The outputs of such a module have no pre-activations. Reading its other features raises
    UnfitError.

    Args:
        module: the network.
        images: (B, 3, H, W).
        role: student or teacher, for messages.
        method: what reads the outputs, for messages.

    Raises:
        UnfitError: the module does not return logits (B, C).
    """
    if isinstance(module, FeatureNetwork):
        return module.forward_features(images)
    return as_outputs(module(images), len(images), _name(module), role, method)


def as_outputs(value: Any, batch: int, name: str, role: str, method: str) -> Outputs:
    """Return outputs as they are, and logits (B, C) as outputs without features.

    Raises:
        UnfitError: the value is neither.
    """
    if isinstance(value, Outputs):
        return value
    if not isinstance(value, Tensor) or value.dim() != 2 or len(value) != batch:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UnfitError(
            f"the {role} {name} must return logits of shape ({batch}, C), and returned {got}; "
            "turn its other outputs off"
        )

    def no(feature: str) -> Any:
        return missing(
            f"{method} reads the {feature} of the {role}, and {name} gives logits only; {ADVICE}"
        )

    return Outputs(value, no("feature maps"), (), no("pooled features"))


def example_outputs(module: nn.Module, images: Tensor, role: str, method: str) -> Outputs:
    """Return the outputs in evaluation mode, without gradients, and restore the module's modes."""
    with evaluating(module), torch.no_grad():
        return forward_outputs(module, images, role, method)


def detached(outputs: Outputs) -> Outputs:
    """Return the outputs without gradients."""
    maps = {
        name: tuple(map(torch.Tensor.detach, value))
        for name in ("stages", "preactivations")
        if isinstance(value := getattr(outputs, name), tuple)
    }
    pooled = outputs.pooled.detach() if isinstance(outputs.pooled, Tensor) else outputs.pooled
    return replace(outputs, logits=outputs.logits.detach(), pooled=pooled, **maps)


def missing(message: str) -> Any:
    """Return a value that stands for a tensor and raises UnfitError when it is read."""

    def fail(*_: Any, **__: Any) -> Any:
        raise UnfitError(message)

    read = ("getitem", "len", "iter", "index", "bool", "add", "sub", "mul", "truediv", "matmul")
    reflected = ("radd", "rsub", "rmul", "rtruediv", "rmatmul", "neg", "float", "eq", "lt", "gt")
    methods: dict[str, Any] = {f"__{name}__": fail for name in (*read, *reflected)}
    methods["__getattr__"] = _failing_attribute(fail)
    methods["__torch_function__"] = classmethod(fail)
    methods["__hash__"] = object.__hash__
    return type("MissingTensor", (), methods)()


def _failing_attribute(fail: Any) -> Any:
    def get(_: Any, name: str) -> Any:
        if name.startswith("__"):  # Python's own look-ups, of `copy` for instance
            raise AttributeError(name)
        return fail()

    return get


def _name(module: nn.Module) -> str:
    return type(module).__name__
