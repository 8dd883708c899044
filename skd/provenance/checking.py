"""Whether an entry of another results folder can be trusted. Reads, never writes. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skd.errors import SkdError
from skd.files import sha256_of
from skd.provenance.facts import WEIGHTS, stated_files
from skd.provenance.finding import Kind
from skd.provenance.reading import near, read_card, read_record
from skd.records import Record, TeacherCard
from skd.store import Entry

_FILE = re.compile(r"\w[\w.-]*\.safetensors")


class RefusedError(SkdError, ValueError):
    """An entry of another results folder is not sound. Says why."""


@dataclass(frozen=True)
class Finished:
    """A finished run or teacher of another results folder, found sound.

    Attributes:
        files: what is at hand beside its record or card, with its SHA-256.
        stamp: changes when its record or card does.
    """

    kind: Kind
    entry: Entry
    files: dict[str, str]
    stamp: str


def check(kind: Kind, entry: Entry) -> Finished | None:
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


def stamp_of(entry: Entry) -> str:
    """Return a hash of an entry's record and card; of a missing one too."""
    state = hashlib.sha256()
    for path in (entry.record_path, entry.card_path):
        state.update(path.read_bytes() if path.is_file() else b"-")
    return state.hexdigest()


def _check(kind: Kind, entry: Entry) -> Finished | None:
    record = _sound(read_record, entry)
    card = _sound(read_card, entry) if kind == "teacher" else None
    if (card if kind == "teacher" else record) is None:
        return None
    stamp = stamp_of(entry)
    if record is not None:
        _check_record(entry, record)
    if card is not None:
        _check_card(entry, card, record)
    files = {}
    for name, stated in stated_files(record, card).items():
        if (found := _hash_of(entry.folder / name)) is None:
            continue
        if found != stated:
            raise RefusedError(
                f"{near(entry.folder / name)} has sha256 {found}, but {stated} is stated: damaged "
                "or replaced"
            )
        files[name] = found
    if card is not None and record is None and (found := _hash_of(entry.logits_path)):
        files[entry.logits_path.name] = (
            found  # an imported teacher's, which its card does not state
        )
    return Finished(kind, entry, files, stamp)


def _sound(
    read: Callable[[Entry], tuple[Record | TeacherCard | None, str]], entry: Entry
) -> Record | TeacherCard | None:
    found, problem = read(entry)
    if problem:
        raise RefusedError(problem)
    return found


def _check_record(entry: Entry, record: Record) -> None:
    _check_id("record", record.id, entry)
    if (identity := record.spec.identity) != entry.id:
        raise RefusedError(
            f"by this code, the identity of its spec is {identity}: the record was edited, or is "
            "of a release of skd that resolves studies in another way"
        )
    for name in record.files:
        if not _FILE.fullmatch(name):
            raise RefusedError(f"its record names a file '{name}'; allowed: NAME.safetensors")


def _check_card(entry: Entry, card: TeacherCard, record: Record | None) -> None:
    """Refuse a card that is not the folder's, or not its record's.

    An imported teacher's identity cannot be recomputed: its card has not the whole data set's spec.
    """
    _check_id("card", card.id, entry)
    if card.kind == "imported":
        return
    if record is None:
        raise RefusedError("its card says that it was trained, and its record is not there")
    same = (record.last.top1, record.last.top5, record.files.get(WEIGHTS))
    if (card.test_top1, card.test_top5, card.sha256) != same:
        raise RefusedError("its card and its record have different accuracies or weights")


def _check_id(what: str, found: str, entry: Entry) -> None:
    if found != entry.id:
        raise RefusedError(f"its {what} is that of {found}: the folder was renamed or edited")


def _hash_of(path: Path) -> str | None:
    """Return the SHA-256 of a file or of what a link leads to; none where there is nothing."""
    if not path.exists():
        return None
    if not path.is_file():
        raise RefusedError(f"{near(path)} is no regular file")
    return sha256_of(path)
