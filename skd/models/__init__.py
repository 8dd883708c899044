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
from itertools import combinations
from types import MappingProxyType

from skd.common.errors import UnknownNameError
from skd.common.plugins import BrokenFileError, load_modules, module_file, print_broken_files
from skd.models.network import FeatureNetwork, Outputs

__all__ = [
    "FeatureNetwork",
    "Outputs",
    "broken_networks",
    "build_model",
    "check_network",
    "network_family",
    "network_names",
]

Builder = Callable[[int], FeatureNetwork]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that reads digits as numbers and ignores case: resnet8 before resnet20."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@cache
def _found() -> tuple[Mapping[str, Mapping[str, Builder]], tuple[str, ...]]:
    """Return the networks by family, and why files or networks of this package are left out."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    modules, failed = load_modules(names)
    broken = [*failed.values()]
    families: dict[str, dict[str, Builder]] = {}
    twice: set[str] = set()
    for name, module in modules.items():
        networks = getattr(module, "NETWORKS", {})
        if isinstance(networks, Mapping):
            families[name] = dict(networks)
        else:
            broken.append(f"{module_file(name)}: NETWORKS is no mapping from names to builders")
    # Of two definitions of a network, neither is taken: which one is meant cannot be known.
    for one, other in combinations(list(families), 2):
        if both := sorted(families[one].keys() & families[other].keys()):
            where = f"{module_file(one)} and {module_file(other)} both define"
            broken.append(f"{where} {', '.join(both)}; rename them in one of the files")
            twice |= {*both}
    families = {
        family: {name: make for name, make in networks.items() if name not in twice}
        for family, networks in families.items()
    }
    print_broken_files(broken)
    return MappingProxyType(families), tuple(broken)


@cache
def _builders() -> Mapping[str, Builder]:
    found = {name: make for networks in _found()[0].values() for name, make in networks.items()}
    return MappingProxyType({name: found[name] for name in sorted(found, key=_natural)})


def broken_networks() -> tuple[str, ...]:
    """Return what is left out of the networks: files that are broken, and names given twice.

    Each is told on stderr once in a process.
    """
    return _found()[1]


def check_network(name: str) -> None:
    """Check that there is a network of a name.

    Raises:
        BrokenFileError: there is none, and some of the networks are left out; says which.
        UnknownNameError: there is none; names the allowed ones.
    """
    if name in _builders():
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
    check_network(name)
    (family,) = (family for family, networks in _found()[0].items() if name in networks)
    return family.rpartition(".")[2]


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
        BrokenFileError, UnknownNameError: as `check_network`.
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    check_network(name)
    return _builders()[name](num_classes)
