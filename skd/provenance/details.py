"""All that is known of one run or teacher, from the store and the studies. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skd.code.sources import sources_id
from skd.common.files import read_json, sha256_of
from skd.provenance.entry_reading import read_card, read_failure, read_record, read_spec
from skd.provenance.lookup import EntryKind, ExpandedStudies, Occurrence
from skd.store.outcomes import teacher_outcome
from skd.store.records import Failure, ProgressNote, Record, TeacherCard
from skd.store.store import Store, StoreEntry, run_outcome
from skd.study.spec import ImportedTeacher, RunSpec, TrainedTeacher

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class StoredFile:
    """A file of tensors beside a record or card."""

    path: Path
    sha256: str | None  # as record or card have it; none where neither does
    there: bool
    found: str | None = None  # its SHA-256 now, where that was asked for

    @property
    def state(self) -> str:
        """What a person wants to know of it."""
        if not self.there:
            return "not there"
        if self.found is None or self.sha256 is None:
            return "there"
        return "matches" if self.found == self.sha256 else "DIFFERS"


@dataclass(frozen=True)
class TeacherOfRun:
    """The teacher of a run."""

    entry: StoreEntry
    spec: ImportedTeacher | TrainedTeacher
    then: TeacherCard | None  # its card when it taught this run
    now: TeacherCard | None  # its card in this store

    @property
    def is_replaced(self) -> bool:
        """Whether this store now has other weights for it than those that taught the run."""
        return bool(self.then and self.now) and self.then.sha256 != self.now.sha256


@dataclass(frozen=True)
class EntryDetails:
    """What is known of one entry.

    Attributes:
        state: done, failed, running, interrupted, missing, or unreadable.
        reason: why it failed, or who runs it.
        problems: what of it cannot be read, and why.
        failure, environment, execution: of the record, or of the attempt that failed.
        sources_here: digest of this code's sources, to compare with that in the environment.
        card: a teacher's own.
        studies_not_searched: studies that may ask for it too, but cannot be read.
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
        """The digest of the sources that made it; none where it is not recorded."""
        return self.environment.get("sources")

    @property
    def same_sources(self) -> bool | None:
        """Whether this code made it; none where that is not recorded."""
        return None if self.sources is None else self.sources == self.sources_here


def entries_of(
    identity: str, store: Store, studies: ExpandedStudies
) -> list[tuple[EntryKind, StoreEntry]]:
    """Return what has an identity: a run, a teacher, or both, of which the store may have none.

    A network trained alone is both where it also teaches: they have the same identity.
    """
    asked = {place.kind for place in studies.occurrences.get(identity, [])}
    entries: list[tuple[EntryKind, StoreEntry]] = [
        ("teacher", store.teacher(identity)),
        ("run", store.run(identity)),
    ]
    return [(kind, entry) for kind, entry in entries if kind in asked or entry.folder.is_dir()]


def collect_details(
    kind: EntryKind,
    entry: StoreEntry,
    store: Store,
    studies: ExpandedStudies,
    results: Path,
    verify: bool,
) -> EntryDetails:
    """Return all that is known of one entry; what cannot be read is among it as a problem.

    Args:
        kind: whether the entry is a run or a teacher.
        entry: its folder, which need not exist.
        store: where its teacher is.
        studies: those that may ask for it.
        results: where the studies' logs are.
        verify: hash its files, which takes time.
    """
    record, damaged_record = read_record(entry)
    card, damaged_card = read_card(entry) if kind == "teacher" else (None, "")
    failure, damaged_failure = read_failure(entry)
    problems = tuple(filter(None, (damaged_record, damaged_card, damaged_failure)))
    places = [place for place in studies.occurrences.get(entry.id, []) if place.kind == kind]
    spec = record.spec if record else read_spec(entry) or _asked(places)
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
        teacher_of_run=_taught(spec, record, store),
        environment=record.environment if record else failure.environment if failure else {},
        execution=record.execution if record else _execution(entry),
        sources_here=sources_id(),
        files=tuple(_files(entry, stated_files(record, card), verify)),
        occurrences=tuple(places),
        studies_not_searched=studies.unreadable,
        logs=tuple(path for place in places for path in place.logs(results)),
    )


def stated_files(record: Record | None, card: TeacherCard | None) -> dict[str, str]:
    """Return the SHA-256 of the files beside a record and card, by name, as these have them."""
    weights = {WEIGHTS: card.sha256} if card else {}
    return {**weights, **(record.files if record else {})}


def _state(kind: EntryKind, entry: StoreEntry, store: Store) -> tuple[str, str]:
    found = run_outcome(entry, 0) if kind == "run" else teacher_outcome(store, entry.id)[0]
    trained = kind == "teacher" and found.outcome == "interrupted" and entry.record_path.exists()
    return found.outcome, "trained, but without its card" if trained else found.reason or ""


def _asked(places: list[Occurrence]) -> RunSpec | ImportedTeacher | None:
    spec = places[0].spec if places else None
    return spec.run if isinstance(spec, TrainedTeacher) else spec


def _taught(
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
        kept = read_json(entry.folder / "execution.json")
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _files(entry: StoreEntry, stated: Mapping[str, str], verify: bool) -> list[StoredFile]:
    names = [*stated, *sorted(path.name for path in entry.folder.glob("[!.]*.safetensors"))]
    files = []
    for name in dict.fromkeys(names):
        path = entry.folder / name
        there = path.is_file()
        found = sha256_of(path) if there and verify else None
        files.append(StoredFile(path, stated.get(name), there, found))
    return files
