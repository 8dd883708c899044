"""Planning a merge: all entries are checked before anything is written. Imports no torch."""

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
    """Results cannot be merged. The message says what to do."""


@dataclass(frozen=True)
class MergeStep:
    """One entry to merge.

    Attributes:
        source: the entry of the other results folder.
        target: the entry in this store.
        is_new: whether the target is missing; otherwise only its missing files are copied.
        files: names of the files to copy.
    """

    source: SoundEntry
    target: StoreEntry
    is_new: bool
    files: tuple[str, ...]


@dataclass(frozen=True)
class MergeConflict:
    """An entry that cannot be merged without losing one of two results.

    Attributes:
        why: what prevents the merge.
        here, there: the results of this store and of the other folder, if they differ.
        is_being_trained: whether a process trains the run in this store now.
    """

    kind: EntryKind
    id: str
    why: str
    here: ResultSide | None = None
    there: ResultSide | None = None
    is_being_trained: bool = False


@dataclass
class MergePlan:
    """What a merge does with each entry of the other results folder."""

    steps: list[MergeStep] = field(default_factory=list)
    already_present: Counter[EntryKind] = field(default_factory=Counter)
    unfinished: Counter[EntryKind] = field(default_factory=Counter)
    refused: list[tuple[EntryKind, str, str]] = field(default_factory=list)  # kind, identity, why
    conflicts: list[MergeConflict] = field(default_factory=list)


def list_entries(source: Path) -> list[tuple[EntryKind, StoreEntry]]:
    """Return the entries of a results folder, teachers first; ``$SKD_TEACHERS`` is not read.

    Raises:
        MergeError: it is not a results folder, or cannot be read.
    """
    folders = {kind: source / name for kind, name in KIND_FOLDERS.items()}
    if not any(folder.is_dir() for folder in folders.values()):
        raise MergeError(f"{source} is not a results folder: {_hint(source)}")
    entries: list[tuple[EntryKind, StoreEntry]] = []
    for kind, folder in folders.items():
        try:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise MergeError(f"{folder} cannot be read: {error.strerror}") from error
        entries += [
            (kind, StoreEntry(path))
            for path in paths
            if path.is_dir() and not path.name.startswith(".")
        ]
    return entries


def plan_merge(
    entries: Iterable[tuple[EntryKind, StoreEntry]], store: Store, on_entry: Callable[[], None]
) -> MergePlan:
    """Check every entry of another results folder against a store, without writing.

    Args:
        entries: the entries of the other results folder.
        store: the store to merge into.
        on_entry: called after each entry.
    """
    plan = MergePlan()
    for kind, entry in entries:
        try:
            source = check_entry(kind, entry)
        except RefusedError as error:
            plan.refused.append((kind, entry.id, str(error)))
        else:
            if source is None:
                plan.unfinished[kind] += 1
            else:
                _add_to_plan(plan, source, store)
        on_entry()
    return plan


def _add_to_plan(plan: MergePlan, source: SoundEntry, store: Store) -> None:
    kind, identity = source.kind, source.entry.id
    target = store.teacher(identity) if kind == "teacher" else store.run(identity)
    decision = plan_entry(source, target, store)
    if isinstance(decision, MergeConflict):
        plan.conflicts.append(decision)
        return
    holder = read_holder(target.folder)
    is_busy = holder is not None and holder.is_alive()
    if is_busy and (decision.is_new or decision.files):
        why = f"being trained here, by {holder}"
        plan.conflicts.append(MergeConflict(kind, identity, why, is_being_trained=True))
        return
    if not decision.is_new:
        plan.already_present[kind] += 1
    if decision.is_new or decision.files or (leftover_files(target) and not is_busy):
        plan.steps.append(decision)


def plan_entry(source: SoundEntry, target: StoreEntry, store: Store) -> MergeStep | MergeConflict:
    """Return what to do with one entry, regardless of its lease in the store."""
    kind, identity = source.kind, target.id
    record, card = read_record(source.entry)[0], read_card(source.entry)[0]
    (mine, damaged_record), (my_card, damaged_card) = read_record(target), read_card(target)
    if problem := damaged_record or damaged_card:
        return MergeConflict(kind, identity, f"{problem}; move it away, then merge again")
    if why := _difference(mine, record, my_card, card):
        sides = ResultSide.from_record(mine, my_card), ResultSide.from_record(record, card)
        return MergeConflict(kind, identity, f"different: {why}", *sides)
    is_new = (my_card if kind == "teacher" else mine) is None
    if is_new and (sides := _different_teachers(record, store)):
        why = "trained with other weights of the teacher than those here"
        return MergeConflict(kind, identity, f"{why} ({record.teacher.id}):", *sides)
    files = tuple(name for name in source.files if is_new or not (target.folder / name).is_file())
    return MergeStep(source, target, is_new, files)


def _difference(
    mine: Record | None, yours: Record | None, my_card: TeacherCard | None, card: TeacherCard | None
) -> str:
    names = record_differences(mine, yours) if mine and yours else []
    names += card_differences(my_card, card) if my_card and card else []
    return ", ".join(dict.fromkeys(names))


def _different_teachers(
    record: Record | None, store: Store
) -> tuple[ResultSide, ResultSide] | None:
    """Return both teachers if a run's teacher has other weights than the one in this store."""
    if record is None or record.teacher is None:
        return None
    mine, _ = read_card(store.teacher(record.teacher.id))
    if mine is None or mine.sha256 == record.teacher.sha256:
        return None
    return ResultSide.from_record(None, mine), ResultSide.from_record(None, record.teacher)


def _hint(source: Path) -> str:
    if not source.exists():
        return "it does not exist"
    if not source.is_dir():
        return "it is a file; give the folder that holds runs/ and teachers/"
    for nearby in (source / "results", source.parent):
        if any((nearby / name).is_dir() for name in KIND_FOLDERS.values()):
            return f"it contains neither runs/ nor teachers/; {display_path(nearby)} does"
    return "it contains neither runs/ nor teachers/"
