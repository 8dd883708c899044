"""Checks of the entries of another results folder, which is only read. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skd.common.errors import SkdError
from skd.common.files import sha256_of
from skd.provenance.details import recorded_digests
from skd.provenance.entry_reading import display_path, read_card, read_record
from skd.provenance.lookup import EntryKind
from skd.store.records import Record, TeacherCard
from skd.store.store import StoreEntry


class RefusedError(SkdError, ValueError):
    """An entry of another results folder cannot be merged. The message says why."""


@dataclass(frozen=True)
class SoundEntry:
    """A finished run or teacher of another results folder that passed all checks.

    Attributes:
        files: SHA-256 of its files of tensors, by name.
        stamp: a hash that changes with its record or card.
    """

    kind: EntryKind
    entry: StoreEntry
    files: dict[str, str]
    stamp: str


def check_entry(kind: EntryKind, entry: StoreEntry) -> SoundEntry | None:
    """Return an entry with its files; ``None`` if it is not finished.

    Files that its record names may be missing: committed records have no files of tensors.

    Raises:
        RefusedError: the entry cannot be read, has another identity than its folder's name, or has
            a file with another SHA-256 than its record or card states.
    """
    try:
        return _check(kind, entry)
    except OSError as error:
        raise RefusedError(f"it cannot be read: {error}") from error


def entry_stamp(entry: StoreEntry) -> str:
    """Return a hash of an entry's record and card, either of which may be missing."""
    state = hashlib.sha256()
    for path in (entry.record_path, entry.card_path):
        state.update(path.read_bytes() if path.is_file() else b"-")
    return state.hexdigest()


def _check(kind: EntryKind, entry: StoreEntry) -> SoundEntry | None:
    record = _read_or_refuse(read_record, entry)
    card = _read_or_refuse(read_card, entry) if kind == "teacher" else None
    if (card if kind == "teacher" else record) is None:
        return None
    stamp = entry_stamp(entry)
    if card is not None and card.kind == "trained" and record is None:
        raise RefusedError("its card says that it was trained, but its record is missing")
    files = {}
    for name, recorded in recorded_digests(record, card).items():
        if (actual := _sha256_if_present(entry.folder / name)) is None:
            continue
        if actual != recorded:
            raise RefusedError(
                f"{display_path(entry.folder / name)} has sha256 {actual}, but its record or card "
                f"states {recorded}: the file is damaged or was replaced"
            )
        files[name] = actual
    # The card of an imported teacher does not state the SHA-256 of its logits.
    if card is not None and record is None and (actual := _sha256_if_present(entry.logits_path)):
        files[entry.logits_path.name] = actual
    return SoundEntry(kind, entry, files, stamp)


def _read_or_refuse(
    read: Callable[[StoreEntry], tuple[Record | TeacherCard | None, str]], entry: StoreEntry
) -> Record | TeacherCard | None:
    content, problem = read(entry)
    if problem:
        raise RefusedError(problem)
    return content


def _sha256_if_present(path: Path) -> str | None:
    """Return the SHA-256 of a file, links followed; ``None`` if it is missing."""
    if not path.exists():
        return None
    if not path.is_file():
        raise RefusedError(f"{display_path(path)} is not a regular file")
    return sha256_of(path)
