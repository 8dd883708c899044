"""The networks, by name.

One file an architecture family. A module of this package that defines ``NETWORKS``, a mapping
from a network's name to a builder that takes the number of classes, is a family: a new one is one
new file, and nothing else is edited.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from skd.errors import UnknownNameError
from skd.models.outputs import FeatureNetwork, Outputs

__all__ = ["FeatureNetwork", "Outputs", "build_model", "network_names"]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that reads digits as numbers and ignores case: resnet8 before resnet20."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@cache
def _builders() -> Mapping[str, Callable[[int], FeatureNetwork]]:
    """Import every module of this package and gather the networks that they define."""
    found: dict[str, Callable[[int], FeatureNetwork]] = {}
    for module in pkgutil.iter_modules(__path__):
        family = getattr(import_module(f"{__name__}.{module.name}"), "NETWORKS", {})
        if twice := found.keys() & family.keys():
            raise RuntimeError(f"{module.name} defines again: {', '.join(sorted(twice))}")
        found |= family
    return MappingProxyType({name: found[name] for name in sorted(found, key=_natural)})


def network_names() -> tuple[str, ...]:
    """Return the names that `build_model` takes, numbers within them in order of size."""
    return tuple(_builders())


def build_model(name: str, num_classes: int = 100) -> FeatureNetwork:
    """Return a new network with fresh weights, in training mode.

    The weights come from torch's global generator, as all of torch's own initialisers do: seed it
    (inside `torch.random.fork_rng`, to leave no trace) for the same weights again.

    Args:
        name: one of `network_names()`.
        num_classes: number of logits, at least 1.

    Raises:
        UnknownNameError: there is no such network.
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    builders = _builders()
    if name not in builders:
        raise UnknownNameError("network", name, builders)
    return builders[name](num_classes)
