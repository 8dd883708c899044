"""Stored weights and logits, read only where they are what their record says. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from skd.common.errors import SkdError
from skd.common.files import sha256_of
from skd.store.store import StoreEntry, StoreError


class UnusableError(SkdError):
    """A stored file is not at hand, or not what it should be. Says why, in a phrase."""


@dataclass(frozen=True)
class StoredNetwork:
    """A finished run, or a teacher at hand.

    Attributes:
        entry: its folder.
        files: SHA-256 by name of the files that belong to it, whether they are there or not.
    """

    entry: StoreEntry
    files: dict[str, str]

    @property
    def id(self) -> str:
        """The identity."""
        return self.entry.id

    @property
    def logits_digest(self) -> str:
        """The SHA-256 that the test logits should have; may raise `UnusableError`, as `digest`."""
        return self.digest(self.entry.logits_path)

    @property
    def weights_digest(self) -> str:
        """The SHA-256 that the weights should have; may raise `UnusableError`, as `digest`."""
        return self.digest(self.entry.weights_path)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 that one of the files should have.

        Raises:
            UnusableError: there is no such file.
        """
        if path.name not in self.files:
            raise UnusableError(_absent(path))
        return self.files[path.name]

    def read(self, path: Path) -> bytes:
        """Return one of the files.

        Raises:
            UnusableError: it is not at hand, or another than recorded.
        """
        expected, data = self.digest(path), _bytes(path)
        if hashlib.sha256(data).hexdigest() != expected:
            raise UnusableError(f"{path.name} is not the recorded file: damaged or replaced")
        return data

    def altered(self) -> tuple[str, ...]:
        """Return the names of its files that are there and not those recorded."""
        paths = {name: self.entry.folder / name for name in sorted(self.files)}
        return tuple(
            name
            for name, path in paths.items()
            if path.exists() and not (path.is_file() and _sha256(path) == self.files[name])
        )

    def logits(self, images: int, classes: int) -> np.ndarray:
        """Return the test logits, (images, classes) float64.

        Raises:
            UnusableError: as `read`; or of another shape, or not finite.
        """
        path = self.entry.logits_path
        try:
            found = load(self.read(path))["logits"].astype(np.float64)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UnusableError(f"{path.name} cannot be read") from error
        if found.shape != (images, classes):
            shape = " x ".join(map(str, found.shape))
            raise UnusableError(f"{path.name} has {shape} logits instead of {images} x {classes}")
        if not np.isfinite(found).all():
            raise UnusableError(f"{path.name} has logits that are not finite")
        return found


def stored_run(entry: StoreEntry) -> StoredNetwork | None:
    """Return a finished run, or none while it is not.

    Raises:
        UnusableError: its record cannot be read.
    """
    try:
        record = entry.record()
    except StoreError as error:
        raise UnusableError(f"{entry.record_path.name} {error.why}") from error
    return StoredNetwork(entry, record.files) if record is not None else None


def stored_teacher(entry: StoreEntry) -> StoredNetwork | None:
    """Return a teacher, or none while it is not at hand.

    An imported one has no record: its weights are known by its card, its logits as they are.

    Raises:
        UnusableError: its card or record cannot be read.
    """
    try:
        card = entry.card()
    except StoreError as error:
        raise UnusableError(f"{entry.card_path.name} {error.why}") from error
    if card is None:
        return None
    run, files = stored_run(entry), {entry.weights_path.name: card.sha256}
    if run is not None:
        return StoredNetwork(entry, run.files | files)
    if entry.logits_path.is_file():
        data = _bytes(entry.logits_path)
        files[entry.logits_path.name] = hashlib.sha256(data).hexdigest()
    return StoredNetwork(entry, files)


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnusableError(_absent(path)) from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror}") from error


def _absent(path: Path) -> str:
    """Name a file as people do: `test_logits.safetensors` as test logits."""
    return f"no {path.stem.replace('_', ' ')} at hand"
