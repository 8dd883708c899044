"""Networks and images whose values do not depend on a library's random generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

from skd import models
from skd.models import build_model
from skd.models.network import FeatureNetwork, Outputs


def seeded(name: str, seed: int = 0, num_classes: int = 100) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(name, num_classes)


def lived_in(name: str, num_classes: int = 100) -> FeatureNetwork:
    """Return a network whose BatchNorms are not identities, as after a training."""
    model = seeded(name, num_classes=num_classes)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def wave(shape: torch.Size, frequency: float, phase: float = 0) -> torch.Tensor:
    steps = torch.arange(shape.numel(), dtype=torch.float64)
    return torch.sin(steps * frequency + phase).view(shape)


def by_formula(model: nn.Module) -> nn.Module:
    """Set a network's weights to float64 values of a formula, without a random generator."""
    state = model.double().state_dict()
    for phase, (key, tensor) in enumerate(state.items()):
        if tensor.ndim > 1:
            state[key] = wave(tensor.shape, 0.7, phase) * (3 / tensor[0].numel()) ** 0.5
        elif key.endswith(("weight", "running_var")):
            state[key] = 1 + 0.3 * wave(tensor.shape, 0.7, phase)
        elif tensor.ndim:
            state[key] = 0.2 * wave(tensor.shape, 0.7, phase)
    model.load_state_dict(state)
    return model


def images(batch: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


class Dropping(FeatureNetwork):
    """A resnet8 with a layer on its last map, for tests of layers that draw."""

    def __init__(self, layer: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.body, self.drop = build_model("resnet8", num_classes), layer

    def forward_features(self, images: torch.Tensor) -> Outputs:
        outputs = self.body.forward_features(images)
        *stages, last = outputs.stages
        rest = self.body.forward_from(3, self.drop(last))
        return Outputs(rest.logits, (*stages, *rest.stages), (), rest.pooled)


@contextmanager
def added_networks(**layers: Callable[[], nn.Module]) -> Iterator[None]:
    """Add networks that `build_model` knows by name: a `Dropping` network for each layer."""
    families, broken = models._families()
    own = {name: _builder(layer) for name, layer in layers.items()}
    changed = {**families, "skd.models.resnet": {**families["skd.models.resnet"], **own}}
    models._builders.cache_clear()
    with mock.patch.object(models, "_families", return_value=(changed, broken)):
        yield
    models._builders.cache_clear()


def _builder(layer: Callable[[], nn.Module]) -> Callable[[int], FeatureNetwork]:
    return lambda num_classes: Dropping(layer(), num_classes)
