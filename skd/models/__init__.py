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

__all__ = ["FeatureNetwork", "Outputs", "build_model", "network_family", "network_names"]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that reads digits as numbers and ignores case: resnet8 before resnet20."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@cache
def _families() -> Mapping[str, Mapping[str, Callable[[int], FeatureNetwork]]]:
    """Import every module of this package and gather the networks that they define."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = {name: getattr(import_module(f"{__name__}.{name}"), "NETWORKS", {}) for name in names}
    seen: dict[str, str] = {}
    for family, networks in found.items():
        if twice := seen.keys() & networks.keys():
            raise RuntimeError(f"{family} defines again: {', '.join(sorted(twice))}")
        seen |= dict.fromkeys(networks, family)
    return MappingProxyType(found)


@cache
def _builders() -> Mapping[str, Callable[[int], FeatureNetwork]]:
    found = {name: make for networks in _families().values() for name, make in networks.items()}
    return MappingProxyType({name: found[name] for name in sorted(found, key=_natural)})


def network_family(name: str) -> str:
    """Return a network's architecture family, which is the name of its file.

    Raises:
        UnknownNameError: there is no such network.
    """
    for family, networks in _families().items():
        if name in networks:
            return family
    raise UnknownNameError("network", name, _builders())


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
