"""What a merge would do: everything is checked before anything is written. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from skd.common.errors import SkdError
from skd.common.lease import read_holder
from skd.provenance.entry_reading import display_path, read_card, read_record
from skd.provenance.lookup import EntryKind
from skd.provenance.source_checks import RefusedError, SoundEntry, check_entry
from skd.store.leftovers import leftover_files
from skd.store.record_differences import ResultSide, card_differences, record_differences
from skd.store.records import Record, TeacherCard
from skd.store.store import Store, StoreEntry

KIND_FOLDERS: dict[EntryKind, str] = {"teacher": "teachers", "run": "runs"}


class MergeError(SkdError):
    """Results cannot be merged. Says what to do."""


@dataclass(frozen=True)
class MergeStep:
    """One entry to be brought, or to be completed where its numbers are there already."""

    finished: SoundEntry
    here: StoreEntry
    new: bool
    files: tuple[str, ...]


@dataclass(frozen=True)
class MergeConflict:
    """An entry that cannot be merged without losing one of two results."""

    kind: EntryKind
    id: str
    why: str
    here: ResultSide | None = None
    there: ResultSide | None = None
    is_being_trained: bool = False  # somebody trains it here now


@dataclass
class MergePlan:
    """What a merge would do with each entry of its source."""

    steps: list[MergeStep] = field(default_factory=list)
    already_present: Counter[EntryKind] = field(default_factory=Counter)
    unfinished: Counter[EntryKind] = field(default_factory=Counter)
    refused: list[tuple[EntryKind, str, str]] = field(default_factory=list)  # kind, identity, why
    conflicts: list[MergeConflict] = field(default_factory=list)


def list_entries(source: Path) -> list[tuple[EntryKind, StoreEntry]]:
    """Return the entries of a results folder, teachers first; its own, not ``$SKD_TEACHERS``.

    Raises:
        MergeError: it is no results folder, or cannot be read.
    """
    folders = {kind: source / name for kind, name in KIND_FOLDERS.items()}
    if not any(folder.is_dir() for folder in folders.values()):
        raise MergeError(f"{source} is no results folder: {_hint(source)}")
    entries: list[tuple[EntryKind, StoreEntry]] = []
    for kind, folder in folders.items():
        try:
            found = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise MergeError(f"{folder} cannot be read: {error.strerror}") from error
        entries += [
            (kind, StoreEntry(path))
            for path in found
            if path.is_dir() and not path.name.startswith(".")
        ]
    return entries


def plan_merge(
    entries: Iterable[tuple[EntryKind, StoreEntry]], store: Store, on_entry: Callable[[], None]
) -> MergePlan:
    """Check every entry of another results folder against a store; writes nothing.

    Args:
        entries: of the other results folder.
        store: what they are to be merged into.
        on_entry: called after each entry.
    """
    plan = MergePlan()
    for kind, entry in entries:
        try:
            finished = check_entry(kind, entry)
        except RefusedError as error:
            plan.refused.append((kind, entry.id, str(error)))
        else:
            if finished is None:
                plan.unfinished[kind] += 1
            else:
                _place(plan, finished, store)
        on_entry()
    return plan


def _place(plan: MergePlan, finished: SoundEntry, store: Store) -> None:
    """Put a sound entry where it belongs in a plan."""
    kind = finished.kind
    here = store.teacher(finished.entry.id) if kind == "teacher" else store.run(finished.entry.id)
    decided = plan_entry(finished, here, store)
    if isinstance(decided, MergeConflict):
        plan.conflicts.append(decided)
        return
    held = read_holder(here.folder)
    busy = held is not None and held.is_alive()
    if busy and (decided.new or decided.files):
        plan.conflicts.append(
            MergeConflict(kind, here.id, f"being trained here, by {held}", is_being_trained=True)
        )
        return
    if not decided.new:
        plan.already_present[kind] += 1
    if decided.new or decided.files or (leftover_files(here) and not busy):
        plan.steps.append(decided)


def plan_entry(finished: SoundEntry, here: StoreEntry, store: Store) -> MergeStep | MergeConflict:
    """Return what is to be done with one sound entry, whoever may hold it here."""
    kind, identity = finished.kind, here.id
    record, card = read_record(finished.entry)[0], read_card(finished.entry)[0]
    (mine, damaged_record), (my_card, damaged_card) = read_record(here), read_card(here)
    if problem := damaged_record or damaged_card:
        return MergeConflict(kind, identity, f"{problem}; move it away, then merge again")
    if why := _difference(mine, record, my_card, card):
        sides = ResultSide.of(mine, my_card), ResultSide.of(record, card)
        return MergeConflict(kind, identity, f"different: {why}", *sides)
    new = (my_card if kind == "teacher" else mine) is None
    if new and (sides := _other_teachers(record, store)):
        why = "taught by the same teacher with other weights than it has here"
        return MergeConflict(kind, identity, f"{why} ({record.teacher.id}):", *sides)
    files = tuple(name for name in finished.files if new or not (here.folder / name).is_file())
    return MergeStep(finished, here, new, files)


def _difference(
    mine: Record | None, yours: Record | None, my_card: TeacherCard | None, card: TeacherCard | None
) -> str:
    names = record_differences(mine, yours) if mine and yours else []
    names += card_differences(my_card, card) if my_card and card else []
    return ", ".join(dict.fromkeys(names))


def _other_teachers(record: Record | None, store: Store) -> tuple[ResultSide, ResultSide] | None:
    """Return both teachers if a run was taught by other weights than this store has for it."""
    if record is None or record.teacher is None:
        return None
    mine, _ = read_card(store.teacher(record.teacher.id))
    if mine is None or mine.sha256 == record.teacher.sha256:
        return None
    return ResultSide.of(None, mine), ResultSide.of(None, record.teacher)


def _hint(source: Path) -> str:
    if not source.exists():
        return "there is nothing"
    if not source.is_dir():
        return "it is a file; give the folder that holds runs/ and teachers/"
    for near_by in (source / "results", source.parent):
        if any((near_by / name).is_dir() for name in KIND_FOLDERS.values()):
            return f"it holds neither runs/ nor teachers/; {display_path(near_by)} does"
    return "it holds neither runs/ nor teachers/"
