"""Whether an entry of another results folder can be trusted. Reads, never writes. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skd.common.errors import SkdError
from skd.common.files import sha256_of
from skd.provenance.details import stated_files
from skd.provenance.entry_reading import display_path, read_card, read_record
from skd.provenance.lookup import EntryKind
from skd.store.records import Record, TeacherCard
from skd.store.store import StoreEntry


class RefusedError(SkdError, ValueError):
    """An entry of another results folder is not sound. Says why."""


@dataclass(frozen=True)
class SoundEntry:
    """A finished run or teacher of another results folder, found sound.

    Attributes:
        files: what is at hand beside its record or card, with its SHA-256.
        stamp: changes when its record or card does.
    """

    kind: EntryKind
    entry: StoreEntry
    files: dict[str, str]
    stamp: str


def check_entry(kind: EntryKind, entry: StoreEntry) -> SoundEntry | None:
    """Return a finished entry, or none where it is not finished.

    A file that its record names may be absent: small, committed records travel alone.

    Raises:
        RefusedError: the entry cannot be read, is not what its folder's name says, or has a file
            that is not the one its record or card names.
    """
    try:
        return _check(kind, entry)
    except OSError as error:
        raise RefusedError(f"it cannot be read: {error}") from error


def entry_stamp(entry: StoreEntry) -> str:
    """Return a hash of an entry's record and card; of a missing one too."""
    state = hashlib.sha256()
    for path in (entry.record_path, entry.card_path):
        state.update(path.read_bytes() if path.is_file() else b"-")
    return state.hexdigest()


def _check(kind: EntryKind, entry: StoreEntry) -> SoundEntry | None:
    record = _sound(read_record, entry)
    card = _sound(read_card, entry) if kind == "teacher" else None
    if (card if kind == "teacher" else record) is None:
        return None
    stamp = entry_stamp(entry)
    if card is not None and card.kind == "trained" and record is None:
        raise RefusedError("its card says that it was trained, and its record is not there")
    files = {}
    for name, stated in stated_files(record, card).items():
        if (found := _hash_of(entry.folder / name)) is None:
            continue
        if found != stated:
            raise RefusedError(
                f"{display_path(entry.folder / name)} has sha256 {found}, but {stated} is stated: damaged "
                "or replaced"
            )
        files[name] = found
    if card is not None and record is None and (found := _hash_of(entry.logits_path)):
        files[entry.logits_path.name] = (
            found  # an imported teacher's, which its card does not state
        )
    return SoundEntry(kind, entry, files, stamp)


def _sound(
    read: Callable[[StoreEntry], tuple[Record | TeacherCard | None, str]], entry: StoreEntry
) -> Record | TeacherCard | None:
    found, problem = read(entry)
    if problem:
        raise RefusedError(problem)
    return found


def _hash_of(path: Path) -> str | None:
    """Return the SHA-256 of a file or of what a link leads to; none where there is nothing."""
    if not path.exists():
        return None
    if not path.is_file():
        raise RefusedError(f"{display_path(path)} is no regular file")
    return sha256_of(path)
