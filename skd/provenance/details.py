"""Everything that store and studies contain about one run or teacher. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skd.code.sources import sources_id
from skd.common.files import read_json, sha256_of
from skd.provenance.entry_reading import read_card, read_failure, read_record, read_spec
from skd.provenance.lookup import EntryKind, ExpandedStudies, Occurrence
from skd.store.outcomes import run_outcome, teacher_outcome
from skd.store.records import Failure, ProgressNote, Record, TeacherCard
from skd.store.store import Store, StoreEntry
from skd.study.spec import ImportedTeacher, RunSpec, TrainedTeacher

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class StoredFile:
    """A file of tensors in the folder of a record or card."""

    path: Path
    sha256: str | None  # in record or card; None if neither has one
    exists: bool
    actual_sha256: str | None = None  # of the file now; None if it was not computed

    @property
    def state(self) -> str:
        """Whether the file exists and, if computed, whether its SHA-256 matches."""
        if not self.exists:
            return "not there"
        if self.actual_sha256 is None or self.sha256 is None:
            return "there"
        return "matches" if self.actual_sha256 == self.sha256 else "DIFFERS"


@dataclass(frozen=True)
class TeacherOfRun:
    """The teacher of a run."""

    entry: StoreEntry
    spec: ImportedTeacher | TrainedTeacher
    card_then: TeacherCard | None  # in the run's record
    card_now: TeacherCard | None  # in this store

    @property
    def is_replaced(self) -> bool:
        """Whether the teacher's weights in this store differ from those during the run."""
        both = self.card_then and self.card_now
        return bool(both) and self.card_then.sha256 != self.card_now.sha256


@dataclass(frozen=True)
class EntryDetails:
    """Everything about one entry of the store.

    Attributes:
        state: done, failed, running, interrupted, missing, or unreadable.
        reason: why it failed, or which process trains it.
        problems: which of its files cannot be read, and why.
        failure, environment, execution: of the record, or of the attempt that failed.
        sources_here: digest of this code's sources, to compare with the one in the environment.
        card: the card, for a teacher.
        studies_not_searched: studies that may contain it too, but cannot be read.
    """

    entry: StoreEntry
    kind: EntryKind
    state: str
    reason: str
    problems: tuple[str, ...] = ()
    spec: RunSpec | ImportedTeacher | None = None
    record: Record | None = None
    card: TeacherCard | None = None
    failure: Failure | None = None
    progress: ProgressNote | None = None
    teacher_of_run: TeacherOfRun | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    sources_here: str | None = None
    files: tuple[StoredFile, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    studies_not_searched: tuple[str, ...] = ()
    logs: tuple[Path, ...] = ()

    @property
    def sources(self) -> str | None:
        """The digest of the sources that computed it; ``None`` if it is not recorded."""
        return self.environment.get("sources")

    @property
    def same_sources(self) -> bool | None:
        """Whether the sources of this code computed it; ``None`` if that is not recorded."""
        return None if self.sources is None else self.sources == self.sources_here


def entries_of(
    identity: str, store: Store, studies: ExpandedStudies
) -> list[tuple[EntryKind, StoreEntry]]:
    """Return the entries of an identity: a run, a teacher, or both. Their folders may be missing.

    A network that is trained alone and is also a teacher has one identity and two entries.
    """
    kinds = {place.kind for place in studies.occurrences.get(identity, [])}
    entries: list[tuple[EntryKind, StoreEntry]] = [
        ("teacher", store.teacher(identity)),
        ("run", store.run(identity)),
    ]
    return [(kind, entry) for kind, entry in entries if kind in kinds or entry.folder.is_dir()]


def collect_details(
    kind: EntryKind,
    entry: StoreEntry,
    store: Store,
    studies: ExpandedStudies,
    results: Path,
    verify: bool,
) -> EntryDetails:
    """Return everything about one entry; files that cannot be read are listed as problems.

    Args:
        kind: whether the entry is a run or a teacher.
        entry: its folder, which need not exist.
        store: the store with its teacher.
        studies: the studies that may contain it.
        results: the results folder with the studies' logs.
        verify: whether to hash its files, which takes time.
    """
    record, damaged_record = read_record(entry)
    card, damaged_card = read_card(entry) if kind == "teacher" else (None, "")
    failure, damaged_failure = read_failure(entry)
    problems = tuple(filter(None, (damaged_record, damaged_card, damaged_failure)))
    places = [place for place in studies.occurrences.get(entry.id, []) if place.kind == kind]
    spec = record.spec if record else read_spec(entry) or _spec_in_study(places)
    state, reason = ("unreadable", "") if problems else _state(kind, entry, store)
    return EntryDetails(
        entry=entry,
        kind=kind,
        state=state,
        reason=reason,
        problems=problems,
        spec=spec,
        record=record,
        card=card,
        failure=failure,
        progress=entry.progress() if state == "running" else None,
        teacher_of_run=_teacher_of_run(spec, record, store),
        environment=record.environment if record else failure.environment if failure else {},
        execution=record.execution if record else _execution(entry),
        sources_here=sources_id(),
        files=tuple(_files(entry, recorded_digests(record, card), verify)),
        occurrences=tuple(places),
        studies_not_searched=studies.unreadable,
        logs=tuple(path for place in places for path in place.logs(results)),
    )


def recorded_digests(record: Record | None, card: TeacherCard | None) -> dict[str, str]:
    """Return the SHA-256 of files by name, as a record and a card state them."""
    weights = {WEIGHTS: card.sha256} if card else {}
    return {**weights, **(record.files if record else {})}


def _state(kind: EntryKind, entry: StoreEntry, store: Store) -> tuple[str, str]:
    """Return the state of an entry, and the reason for it."""
    outcome = run_outcome(entry, 0) if kind == "run" else teacher_outcome(store, entry.id)[0]
    has_record = entry.record_path.exists()
    if kind == "teacher" and outcome.outcome == "interrupted" and has_record:
        return outcome.outcome, "trained, but without its card"
    return outcome.outcome, outcome.reason or ""


def _spec_in_study(places: list[Occurrence]) -> RunSpec | ImportedTeacher | None:
    spec = places[0].spec if places else None
    return spec.run if isinstance(spec, TrainedTeacher) else spec


def _teacher_of_run(
    spec: RunSpec | ImportedTeacher | None, record: Record | None, store: Store
) -> TeacherOfRun | None:
    if not isinstance(spec, RunSpec) or spec.teacher is None:
        return None
    entry = store.teacher(spec.teacher.identity)
    return TeacherOfRun(
        entry, spec.teacher, record.teacher if record else None, read_card(entry)[0]
    )


def _execution(entry: StoreEntry) -> dict[str, Any]:
    try:
        execution = read_json(entry.folder / "execution.json")
    except (OSError, ValueError):
        return {}
    return execution if isinstance(execution, dict) else {}


def _files(entry: StoreEntry, recorded: Mapping[str, str], verify: bool) -> list[StoredFile]:
    names = [*recorded, *sorted(path.name for path in entry.folder.glob("[!.]*.safetensors"))]
    files = []
    for name in dict.fromkeys(names):
        path = entry.folder / name
        exists = path.is_file()
        actual = sha256_of(path) if exists and verify else None
        files.append(StoredFile(path, recorded.get(name), exists, actual))
    return files
