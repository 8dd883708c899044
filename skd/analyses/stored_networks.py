"""Stored weights and logits, verified by their records' digests. Does not import torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from skd.analyses.errors import UnusableError
from skd.common.files import sha256_of
from skd.store.store import StoreEntry, StoreError


@dataclass(frozen=True)
class StoredNetwork:
    """A finished run, or a stored teacher.

    Attributes:
        entry: its entry in the store.
        files: SHA-256 of its recorded files by name, including missing ones.
    """

    entry: StoreEntry
    files: dict[str, str]

    @property
    def id(self) -> str:
        """The identity."""
        return self.entry.id

    @property
    def logits_digest(self) -> str:
        """The recorded SHA-256 of the test logits; may raise `UnusableError`, as `digest`."""
        return self.digest(self.entry.logits_path)

    @property
    def weights_digest(self) -> str:
        """The recorded SHA-256 of the weights; may raise `UnusableError`, as `digest`."""
        return self.digest(self.entry.weights_path)

    def digest(self, path: Path) -> str:
        """Return the recorded SHA-256 of one of the files.

        Raises:
            UnusableError: the file is not recorded.
        """
        if path.name not in self.files:
            raise UnusableError(_missing(path))
        return self.files[path.name]

    def read(self, path: Path) -> bytes:
        """Return the content of one of the files.

        Raises:
            UnusableError: the file is missing, or is not the recorded one.
        """
        expected, data = self.digest(path), _bytes(path)
        if hashlib.sha256(data).hexdigest() != expected:
            raise UnusableError(f"{path.name} is not the recorded file: damaged or replaced")
        return data

    def altered_files(self) -> tuple[str, ...]:
        """Return the names of existing files that are not the recorded ones."""
        paths = {name: self.entry.folder / name for name in sorted(self.files)}
        return tuple(
            name
            for name, path in paths.items()
            if path.exists() and not (path.is_file() and _sha256(path) == self.files[name])
        )

    def logits(self, images: int, classes: int) -> np.ndarray:
        """Return the test logits, (images, classes) float64.

        Raises:
            UnusableError: as `read`; or the logits have another shape, or are not finite.
        """
        path = self.entry.logits_path
        try:
            logits = load(self.read(path))["logits"].astype(np.float64)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UnusableError(f"{path.name} cannot be read") from error
        if logits.shape != (images, classes):
            shape = " x ".join(map(str, logits.shape))
            raise UnusableError(f"{path.name} has {shape} logits instead of {images} x {classes}")
        if not np.isfinite(logits).all():
            raise UnusableError(f"{path.name} has logits that are not finite")
        return logits


def stored_run(entry: StoreEntry) -> StoredNetwork | None:
    """Return a run, or ``None`` if it is not finished.

    Raises:
        UnusableError: its record cannot be read.
    """
    try:
        record = entry.record()
    except StoreError as error:
        raise UnusableError(f"{entry.record_path.name} {error.why}") from error
    return StoredNetwork(entry, record.files) if record is not None else None


def stored_teacher(entry: StoreEntry) -> StoredNetwork | None:
    """Return a teacher, or ``None`` if it is not stored.

    An imported teacher has no record: its card has the digest of its weights, and its logits count
    as they are.

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
        raise UnusableError(_missing(path)) from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror}") from error


def _missing(path: Path) -> str:
    """Return the reason for a missing file, as "test logits not found"."""
    return f"{path.stem.replace('_', ' ')} not found"
