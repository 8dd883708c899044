"""Networks' weights as files: what a run leaves, and what is read back, ours and the field's."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skd.errors import SkdError
from skd.files import sha256_of, write_atomically
from skd.models import FeatureNetwork, build_model
from skd.randomness import seeded
from skd.records import TeacherCard
from skd.store import Entry


class TeacherError(SkdError):
    """A teacher is not at hand or does not fit. Says what to do."""


@dataclass(frozen=True)
class LoadedTeacher:
    """A frozen teacher in evaluation mode, and its card."""

    network: FeatureNetwork
    card: TeacherCard


def leave_weights(entry: Entry, network: nn.Module, logits: Tensor) -> dict[str, str]:
    """Store a network's weights and its test-set logits (M, C); return the files' SHA-256."""
    weights = leave(entry.weights_path, network.state_dict())
    return weights | leave(entry.logits_path, {"logits": logits.cpu().half()})


def leave(path: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Store tensors; return the file's SHA-256 by its name."""
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(plain))
    return {path.name: sha256_of(path)}


def load_teacher(entry: Entry, device: torch.device, num_classes: int) -> LoadedTeacher:
    """Return a teacher from the store: frozen, in evaluation mode, its weights verified.

    Raises:
        TeacherError: it is not at hand, or its weights are not those on its card.
    """
    card = entry.card()
    if card is None:
        raise TeacherError(f"the teacher {entry.id} is not in the store; train or import it first")
    if not entry.weights_path.is_file():
        raise TeacherError(
            f"{entry.weights_path} is not there; remove the teacher's folder, then: skd teacher"
        )
    if (found := sha256_of(entry.weights_path)) != card.sha256:
        raise TeacherError(
            f"{entry.weights_path} has sha256 {found}, its card says {card.sha256}: damaged or "
            "replaced; remove the teacher's folder, then: skd teacher"
        )
    weights = load_file(entry.weights_path)
    network = build_loaded(card.network, num_classes, weights, what=f"the teacher {entry.id}")
    return LoadedTeacher(network.to(device).eval().requires_grad_(False), card)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's weights, in the shapes the field leaves them.

    A bare state dict, or one under ``model``, ``state_dict``, ``net`` or ``student``; keys with or
    without DataParallel's ``module.``; safetensors files too. No code in the file is run.

    Raises:
        TeacherError: not such a file.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # RepDistiller saves its command-line options beside the weights: plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TeacherError(f"{path} is no checkpoint that can be read safely: {error}") from error
    for key in ("model", "state_dict", "net", "student"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        kind = (
            f"keys {', '.join(map(str, data))}" if isinstance(data, dict) else type(data).__name__
        )
        raise TeacherError(f"{path} holds no state dict (found {kind})")
    return {str(key).removeprefix("module."): value for key, value in data.items()}


def build_loaded(
    name: str, num_classes: int, weights: dict[str, Tensor], what: str
) -> FeatureNetwork:
    """Return a network with the given weights, of exactly its keys and shapes.

    Args:
        name: the network's.
        num_classes: C.
        weights: its state dict.
        what: how a message names them.

    Raises:
        TeacherError: names what is missing, what is left over, and which shapes differ.
    """
    with seeded(0, "weights to be overwritten"):
        network = build_model(name, num_classes)
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    problems = [
        f"{title} {len(keys)}: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("unexpected", unexpected), ("shapes", shapes))
        if keys
    ]
    if problems:
        raise TeacherError(f"{what} does not fit: {'; '.join(problems)}")
    network.load_state_dict(weights)
    return network
