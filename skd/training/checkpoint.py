"""Checkpoints of a run, which survive that the process is killed while it writes one.

Two generations are kept. A file starts with the SHA-256 of its content: a damaged file is
recognised, and the previous generation is used. A file also names the run that it belongs to.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from skd.common.errors import SkdError, warn_once
from skd.common.files import sync_folder, write_atomically
from skd.common.frozen import canonical, digest
from skd.store.store import StoreEntry
from skd.study.spec import RunSpec

_DIGEST_BYTES = 32
_OWNER_KEY = "of"  # older checkpoints do not have it
# Errors for a file that other code, or another torch, has written.
_MISFITS = (RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError)


class CheckpointError(SkdError):
    """A run cannot resume from its checkpoints. Says what to do."""


class ForeignStateError(Exception):
    """A state is that of a run with another recipe. Says how they differ."""


@dataclass(frozen=True)
class CheckpointOwner:
    """The run that a checkpoint belongs to.

    Attributes:
        id: name of its folder.
        spec: digest of its specification.
    """

    id: str
    spec: str

    @classmethod
    def of(cls, entry: StoreEntry, spec: RunSpec) -> Self:
        """Return the owner for a specification that is trained in a folder of the store."""
        return cls(entry.id, digest(canonical(spec)))


def save(folder: Path, state: dict[str, Any], owner: CheckpointOwner) -> None:
    """Write a checkpoint atomically. The current one becomes the previous generation.

    Args:
        folder: the run's folder.
        state: tensors and plain data, which `torch.load(weights_only=True)` accepts.
        owner: the run.
    """
    buffer = io.BytesIO()
    torch.save({**state, _OWNER_KEY: asdict(owner)}, buffer)
    content = buffer.getvalue()
    next_path, current, previous = _paths(folder)
    write_atomically(next_path, hashlib.sha256(content).digest() + content)
    if current.exists():
        current.replace(previous)
    next_path.replace(current)
    sync_folder(folder)


def load(
    folder: Path,
    device: torch.device,
    owner: CheckpointOwner,
    apply_state: Callable[[dict[str, Any]], Any] = lambda state: state,
) -> Any:
    """Apply the newest undamaged checkpoint that fits; return what ``apply_state`` returns.

    Each checkpoint that is skipped causes a warning.

    Args:
        folder: the run's folder.
        device: where its tensors are loaded.
        owner: the run that the checkpoint must belong to. A checkpoint without an owner is
            accepted.
        apply_state: called with the state; raises an error if the state does not fit. By default
            the state is returned.

    Returns:
        The result; ``None`` if there is no undamaged checkpoint.

    Raises:
        CheckpointError: a checkpoint belongs to another run, or no undamaged checkpoint fits. The
            run is not started again by itself, as that would lose it.
    """
    misfit: str | None = None
    for path in _paths(folder):
        if (content := _read_undamaged(path)) is None:
            continue
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            _check_owner(path, state.pop(_OWNER_KEY, None), owner)
            return apply_state(state)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except ForeignStateError as error:
            raise CheckpointError(
                f"{path} is the checkpoint of another run: {error}; move it to the folder that it "
                "belongs to, or remove it"
            ) from error
        except (*_MISFITS, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warn_once(f"{path} does not fit this run ({reason}); using the checkpoint before it")
            misfit = misfit or f"{path} does not fit this run ({reason})"
    if misfit is not None:
        raise CheckpointError(
            f"{misfit}, and there is no other checkpoint: another version of the code or of torch "
            f"has written it. Resume with that version, or remove {folder} to start the run again"
        )
    return None


def exists(folder: Path) -> bool:
    """Return whether a run has a checkpoint, damaged or not."""
    return any(path.is_file() for path in _paths(folder))


def _read_undamaged(path: Path) -> bytes | None:
    """Return the content of a file; ``None`` if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    stored_digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored_digest:
        warn_once(f"{path} is damaged; using the checkpoint before it")
        return None
    return content


def _check_owner(path: Path, stored: dict[str, str] | None, owner: CheckpointOwner) -> None:
    if stored is None or stored == asdict(owner):
        return
    raise CheckpointError(
        f"{path} is a checkpoint of run {stored['id']}, not of run {owner.id}; move it to the "
        "folder that it belongs to, or remove it"
        if stored["id"] != owner.id
        else f"{path} was saved with a different specification of this run; remove it"
    )


def _paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the newest path first. It only exists if a save was interrupted at its end."""
    names = ("checkpoint.next.pt", "checkpoint.pt", "checkpoint.previous.pt")
    return tuple(folder / name for name in names)
