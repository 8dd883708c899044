"""Networks of other libraries, as sheets describe them: a name that holds the whole description.

Such a name stands wherever a network's name does, so it is part of a run's identity. Imports no
torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "wrap:"
LIBRARIES = ("torchvision", "timm")
# Arguments of the libraries' builders that decide the classes or load weights.
NOT_OPTIONS = frozenset(
    {
        "checkpoint_path",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "weights",
        "weights_backbone",
    }
)


@dataclass(frozen=True)
class WrappedNetwork:
    """A network of a library.

    Attributes:
        library: one of `LIBRARIES`.
        model: the network's name in the library.
        stages: the modules whose outputs are the stages, the stem's first.
        options: further arguments of the library's builder.
    """

    library: str
    model: str
    stages: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        """A short name for users, such as torchvision/resnet18."""
        return f"{self.library}/{self.model}"


def options_problem(options: Mapping[str, Any]) -> str | None:
    """Return which options cannot be set and what to do instead; ``None`` if all can."""
    refused = sorted(options.keys() & NOT_OPTIONS)
    if not refused:
        return None
    return (
        f"{', '.join(refused)} cannot be set: the number of classes is the data set's, and "
        "weights are drawn anew; for trained weights, import a teacher (import: {file: …})"
    )


def wrapped_name(source: str, stages: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return the name that holds a description: the same for the same description.

    Args:
        source: LIBRARY/NAME.
        stages, options: as in `WrappedNetwork`.
    """
    description = {"wrap": source, "stages": list(stages), "options": dict(options)}
    return PREFIX + json.dumps(description, sort_keys=True, separators=(",", ":"))


def parse_wrapped(name: str) -> WrappedNetwork | None:
    """Return the description in a network's name; ``None`` for a network of this suite."""
    if not name.startswith(PREFIX):
        return None
    data = json.loads(name.removeprefix(PREFIX))
    library, _, model = data["wrap"].partition("/")
    return WrappedNetwork(library, model, tuple(data["stages"]), data["options"])


def network_label(name: str) -> str:
    """Return a network's name as users read it."""
    wrapped = parse_wrapped(name)
    return wrapped.label if wrapped else name
