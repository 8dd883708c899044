"""Checkpoints that survive being killed while they are written.

Two generations are kept. A file carries the SHA-256 of its content, so that a damaged one is
noticed, and the one before it used. It also says which run it is of.
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
_OF = "of"  # the key of what a checkpoint says of its run; earlier versions said nothing
# What may come of data that another version of this code, or of torch, has written.
_MISFITS = (RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError)


class CheckpointError(SkdError):
    """A run cannot go on from its checkpoints. Says what to do."""


@dataclass(frozen=True)
class CheckpointOwner:
    """Which run a checkpoint is of.

    Attributes:
        id: its folder's name.
        spec: the digest of its specification.
    """

    id: str
    spec: str

    @classmethod
    def of(cls, entry: StoreEntry, spec: RunSpec) -> Self:
        """Return the run that trains a specification in a folder of the store."""
        return cls(entry.id, digest(canonical(spec)))


def save(folder: Path, state: dict[str, Any], owner: CheckpointOwner) -> None:
    """Write a checkpoint atomically; the one before it stays as the previous generation.

    Args:
        folder: the run's folder.
        state: tensors and plain data, as `torch.load(weights_only=True)` takes.
        owner: whose state it is.
    """
    buffer = io.BytesIO()
    torch.save({**state, _OF: asdict(owner)}, buffer)
    content = buffer.getvalue()
    waiting, current, previous = _paths(folder)
    write_atomically(waiting, hashlib.sha256(content).digest() + content)
    if current.exists():
        current.replace(previous)
    waiting.replace(current)
    sync_folder(folder)


def load(
    folder: Path,
    device: torch.device,
    owner: CheckpointOwner,
    apply_state: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any] | None:
    """Return the newest checkpoint that is sound and fits, or none where there is no sound one.

    Each one that is passed over is warned of.

    Args:
        folder: the run's folder.
        device: where its tensors go.
        owner: whose checkpoint it must be; one that says nothing of its run is taken for this one's.
        apply_state: is given the state, and raises where it does not fit.

    Raises:
        CheckpointError: a checkpoint is another run's; or those that are sound cannot be used,
            which is no reason to begin anew.
    """
    unfit: str | None = None
    for path in _paths(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        stored, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != stored:
            warn_once(f"{path} is damaged; going back to the one before it")
            continue
        try:
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            _check_run(path, state.pop(_OF, None), owner)
            apply_state(state)
            return state
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (*_MISFITS, EOFError, pickle.UnpicklingError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            warn_once(f"{path} does not fit this run ({why}); going back to the one before it")
            unfit = unfit or f"{path} does not fit this run ({why})"
    if unfit is not None:
        raise CheckpointError(
            f"{unfit}, and there is no other: another version of the code or of torch has written "
            f"it. Go on with that version, or remove {folder} to begin the run anew"
        )
    return None


def exists(folder: Path) -> bool:
    """Return whether a run has a checkpoint, sound or not."""
    return any(path.is_file() for path in _paths(folder))


def _check_run(path: Path, of: dict[str, str] | None, run: CheckpointOwner) -> None:
    if of is None or of == asdict(run):
        return
    raise CheckpointError(
        f"{path} is a checkpoint of the run {of['id']}, not of {run.id}; move it to where it "
        "belongs, or remove it"
        if of["id"] != run.id
        else f"{path} was saved with another specification than this run's; remove it"
    )


def _paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the newest first; the first one is there only if a save was cut short at its end."""
    names = ("checkpoint.next.pt", "checkpoint.pt", "checkpoint.previous.pt")
    return tuple(folder / name for name in names)
