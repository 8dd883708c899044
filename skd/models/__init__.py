"""The networks, by name.

Each file is one architecture family. It defines ``NETWORKS``, a mapping from a network's name to a
builder that takes the number of classes. A new family is a new file; no other file changes.
"""

from __future__ import annotations

import contextlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import torch

from skd.common.errors import UnknownNameError
from skd.common.plugins import (
    BrokenFileError,
    load_modules,
    module_file,
    module_from_elsewhere,
    print_broken_files,
)
from skd.common.wrapped_networks import parse_wrapped
from skd.models.network import FeatureNetwork, Outputs
from skd.models.wrapped import build_wrapped

__all__ = [
    "FeatureNetwork",
    "Outputs",
    "broken_networks",
    "build_model",
    "check_network",
    "family_networks",
    "network_family",
    "network_names",
    "networks_of_file",
]

Builder = Callable[[int], FeatureNetwork]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that reads digits as numbers and ignores case: resnet8 before resnet20."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@cache
def _families() -> tuple[Mapping[str, Mapping[str, Builder]], tuple[str, ...]]:
    """Return the networks by family, and the reasons why files or networks are left out."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    modules, failed = load_modules(names)
    broken = [*failed.values()]
    families: dict[str, dict[str, Builder]] = {}
    ambiguous: set[str] = set()
    for name, module in modules.items():
        networks = getattr(module, "NETWORKS", {})
        if isinstance(networks, Mapping):
            families[name] = dict(networks)
        else:
            broken.append(f"{module_file(name)}: NETWORKS must be a mapping from names to builders")
    # A network that two files define is left out: it is not known which definition is meant.
    for first, second in combinations(list(families), 2):
        if shared := sorted(families[first].keys() & families[second].keys()):
            files = f"{module_file(first)} and {module_file(second)}"
            broken.append(
                f"{files} both define {', '.join(shared)}; rename them in one of the files"
            )
            ambiguous |= {*shared}
    families = {
        family: {name: build for name, build in networks.items() if name not in ambiguous}
        for family, networks in families.items()
    }
    print_broken_files(broken)
    return MappingProxyType(families), tuple(broken)


@cache
def _builders() -> Mapping[str, Builder]:
    builders = {
        name: build for networks in _families()[0].values() for name, build in networks.items()
    }
    return MappingProxyType({name: builders[name] for name in sorted(builders, key=_natural)})


def broken_networks() -> tuple[str, ...]:
    """Return the reasons why files or networks are left out: broken files and ambiguous names.

    Each process prints them once on stderr.
    """
    return _families()[1]


def check_network(name: str) -> None:
    """Check that a network with this name exists.

    Raises:
        BrokenFileError: there is no such network, and some networks are left out; says which.
        UnknownNameError: there is no such network; names the allowed ones.
        WrapError: a network of another library cannot be used as its name describes it.
    """
    if name in _builders():
        return
    if (wrapped := parse_wrapped(name)) is not None:
        with torch.random.fork_rng(devices=[]):
            build_wrapped(wrapped, 2)
        return
    unknown = UnknownNameError("network", name, _builders())
    if left_out := broken_networks():
        raise BrokenFileError(f"{unknown}; left out: {'; '.join(left_out)}")
    raise unknown


def network_family(name: str) -> str:
    """Return a network's architecture family, which is the name of its file.

    Raises:
        BrokenFileError, UnknownNameError: as `check_network`.
    """
    if parse_wrapped(name) is not None:
        return "wrapped"
    check_network(name)
    (family,) = (family for family, networks in _families()[0].items() if name in networks)
    return family.rpartition(".")[2]


def family_networks(family: str) -> tuple[str, ...]:
    """Return the names of the networks that a file of this package defines."""
    return tuple(_families()[0].get(f"{__name__}.{family}", {}))


@contextlib.contextmanager
def networks_of_file(file: Path) -> Iterator[tuple[str, ...]]:
    """Add the networks of a file outside this package within the context, as if it were in it.

    Yields:
        The names of the file's networks.

    Raises:
        BrokenFileError: the file cannot be used, or its networks have the names of others.
    """
    with module_from_elsewhere(__name__, file) as module:
        _families.cache_clear()
        _builders.cache_clear()
        try:
            names = family_networks(module)
            if not names:
                reasons = "; ".join(broken_networks())
                raise BrokenFileError(f"{file}: defines no network{reasons and f': {reasons}'}")
            yield names
        finally:
            _families.cache_clear()
            _builders.cache_clear()


def network_names() -> tuple[str, ...]:
    """Return the names that `build_model` accepts, in natural order: resnet8 before resnet20."""
    return tuple(_builders())


def build_model(name: str, num_classes: int = 100) -> FeatureNetwork:
    """Return a new network with fresh weights, in training mode.

    The weights are drawn from torch's global generator, as in torch's own initialisers. Seed it to
    get the same weights again, inside `torch.random.fork_rng` to leave its state unchanged.

    Args:
        name: one of `network_names()`.
        num_classes: number of logits, at least 1.

    Raises:
        BrokenFileError, UnknownNameError: as `check_network`.
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    if (wrapped := parse_wrapped(name)) is not None:
        return build_wrapped(wrapped, num_classes)
    check_network(name)
    return _builders()[name](num_classes)
