"""Checkpoints that survive being killed while they are written.

Two generations are kept. A file carries the SHA-256 of its content, so that a damaged one is
noticed, and the one before it used.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from skd.files import sync_folder, write_atomically

_DIGEST_BYTES = 32


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; the one before it stays as the previous generation.

    Args:
        folder: the run's folder.
        state: tensors and plain data, as `torch.load(weights_only=True)` takes.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    waiting, current, previous = _paths(folder)
    write_atomically(waiting, hashlib.sha256(content).digest() + content)
    if current.exists():
        current.replace(previous)
    waiting.replace(current)
    sync_folder(folder)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the newest sound checkpoint, or none; warns of each damaged one it passes over."""
    for path in _paths(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        stored, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == stored:
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        warnings.warn(f"{path} is damaged; going back to the one before it", stacklevel=2)
    return None


def remove(folder: Path) -> None:
    """Remove a finished run's checkpoints, and what a kill left of one being written."""
    for pattern in ("checkpoint*.pt", ".checkpoint*"):
        for path in folder.glob(pattern):
            path.unlink()


def _paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the newest first; the first one is there only if a save was cut short at its end."""
    names = ("checkpoint.next.pt", "checkpoint.pt", "checkpoint.previous.pt")
    return tuple(folder / name for name in names)
