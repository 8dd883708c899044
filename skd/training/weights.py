"""Weights in the store: saved at the end of a run, and loaded for teachers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skd.common.errors import TeacherError
from skd.common.files import sha256_of, write_atomically
from skd.models import FeatureNetwork
from skd.store.records import TeacherCard
from skd.store.store import StoreEntry
from skd.training.network_loading import build_from_state_dict


@dataclass(frozen=True)
class TeacherNetwork:
    """A frozen teacher in evaluation mode, and its card."""

    network: FeatureNetwork
    card: TeacherCard


def save_weights(entry: StoreEntry, network: nn.Module, logits: Tensor) -> dict[str, str]:
    """Save the weights of a network and its test logits (M, C); return SHA-256 by file name."""
    weights = save_tensors(entry.weights_path, network.state_dict())
    return weights | save_tensors(entry.logits_path, {"logits": logits.cpu().half()})


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Save tensors to a file; return its SHA-256 by its name."""
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(plain))
    return {path.name: sha256_of(path)}


def load_teacher_network(
    entry: StoreEntry, device: torch.device, num_classes: int
) -> TeacherNetwork:
    """Return a teacher from the store, frozen and in evaluation mode, after verifying its weights.

    Raises:
        TeacherError: it is not in the store, its weights differ from its card, or they are not
            finite.
    """
    card = entry.card()
    if card is None:
        raise TeacherError(f"the teacher {entry.id} is not in the store; train or import it first")
    if not entry.weights_path.is_file():
        raise TeacherError(
            f"{entry.weights_path} is not there; remove the teacher's folder, then: skd teacher"
        )
    if (sha256 := sha256_of(entry.weights_path)) != card.sha256:
        raise TeacherError(
            f"{entry.weights_path} has sha256 {sha256}, its card says {card.sha256}: damaged or "
            "replaced; remove the teacher's folder, then: skd teacher"
        )
    weights = load_file(entry.weights_path)
    network = build_from_state_dict(
        card.network, num_classes, weights, what=f"the teacher {entry.id}"
    )
    return TeacherNetwork(network.to(device).eval().requires_grad_(False), card)
