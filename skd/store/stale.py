"""Finished runs whose code, or whose teacher, is another one today. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from skd.code.accepted import Acceptance, CodeChanges, changes_since, read_acceptances
from skd.common.frozen import digest
from skd.store.records import TeacherCard
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.expansion import Cell, Expansion
from skd.study.spec import RunSpec

TODAYS_CODE, UNKNOWN_CODE = "today's", "unknown"
MAX_FILES_NAMED = 4  # that a message names


@dataclass(frozen=True)
class FinishedRun:
    """A finished run or trained teacher, beside what today's code is.

    Attributes:
        label: how a person names it.
        entry: its folder.
        changed: how its code has changed since; none where its code is not known.
        other_teacher: whether the teacher at hand has other weights than the one that taught it.
        finished_at: as its record says.
    """

    label: str
    entry: StoreEntry
    changed: CodeChanges | None
    other_teacher: bool = False
    finished_at: str = ""

    @property
    def state(self) -> str:
        """Which code trained it: today's, unknown, or a digest of how it has changed."""
        return code_state_of(self.changed)

    @property
    def stale(self) -> bool:
        """Whether training it anew may give other numbers."""
        return bool(self.changed) or self.other_teacher


def code_changes_of(
    code: Mapping[str, str] | None, today: Mapping[str, str], accepted: Iterable[Acceptance]
) -> CodeChanges | None:
    """Return how the code of a record has changed since; none where it is not known.

    Args:
        code: of the record.
        today: digests of the run's files as they are now; empty: not known.
        accepted: changes that left the numbers as they were.
    """
    if code is None or not today or any(name.startswith(UNKNOWN_CODE) for name in code.values()):
        return None
    return changes_since(code, today, accepted)


def code_state_of(changed: CodeChanges | None) -> str:
    """Return a word or a digest that is the same for runs whose code has changed alike."""
    if changed is None:
        return UNKNOWN_CODE
    return digest(changed) if changed else TODAYS_CODE


def finished_runs(
    expansion: Expansion,
    store: Store,
    cells: Iterable[Cell] | None = None,
    teachers: Iterable[str] = (),
) -> list[FinishedRun]:
    """Return the finished runs of some cells of a study, and trained teachers.

    A record or a card that cannot be read is for others to tell.

    Args:
        expansion: the study.
        store: where they are.
        cells: of the runs; none: all of the study.
        teachers: names of teachers beside those of the cells.
    """
    cells = expansion.cells if cells is None else tuple(cells)
    accepted = read_acceptances()
    found: dict[Path, FinishedRun] = {}  # a run without a teacher may be a teacher's training, too

    def look(label: str, entry: StoreEntry, spec: RunSpec, card: TeacherCard | None) -> None:
        stored = _stored(entry)
        if stored is None:
            return
        today = expansion.code_of(spec)
        changed = code_changes_of(stored.code, today, accepted)
        taught = stored.teacher.get("sha256") if stored.teacher else None
        other = None not in (card, taught) and card.sha256 != taught
        run = FinishedRun(label, entry, changed, other, stored.finished_at)
        if not run.stale or entry.finished():  # a record that is not sound is told elsewhere
            found[entry.folder] = run

    cards = {}
    taught_by = [cell.teacher for cell in cells if cell.teacher]
    for name in dict.fromkeys([*taught_by, *teachers]):
        node = expansion.teacher(name)
        entry = store.teacher(node.id)
        try:
            cards[name] = entry.card()
        except (StoreError, OSError):
            cards[name] = None
        if node.spec.kind == "trained":
            look(f"teacher {name}", entry, node.spec.run, None)
    for cell in cells:
        for seed, identity in cell.runs.items():
            label, entry = f"{cell.key} seed {seed}", store.run(identity)
            look(label, entry, cell.run(seed), cards.get(cell.teacher))
    return list(found.values())


class _Stored(BaseModel):
    """What is read of a record here: to read all of its epochs takes ten times as long."""

    finished_at: str
    code: dict[str, str] | None = None
    teacher: dict[str, Any] | None = None


def _stored(entry: StoreEntry) -> _Stored | None:
    try:
        return _Stored.model_validate_json(entry.record_path.read_bytes())
    except (OSError, ValueError):
        return None


def stale_lines(study: str, runs: Iterable[FinishedRun]) -> list[str]:
    """Return what a person must know of a study's finished runs, as lines; none if all is well."""
    runs = list(runs)
    changed = [run for run in runs if run.changed]
    other = [run for run in runs if run.other_teacher]
    unknown = sum(run.changed is None for run in runs)
    lines = []
    if changed:
        counts = Counter(path for run in changed for path in run.changed)
        lines.append(
            f"{runs_text(len(changed), 'was', 'were')} trained by other code than today's "
            f"({files_text(counts)}): skd train {study} --stale trains them anew; where the change "
            f"leaves the numbers as they were: skd accept {study}"
        )
    if other:
        lines.append(
            f"{runs_text(len(other), 'was', 'were')} taught by other weights than the teacher at "
            f"hand has: skd train {study} --stale trains them anew"
        )
    if unknown:
        lines.append(
            f"{runs_text(unknown, 'does', 'do')} not say which code trained "
            f"{'it' if unknown == 1 else 'them'}: code unknown"
        )
    return lines


def files_text(paths: Iterable[str]) -> str:
    """Return the names of some files, the first few."""
    names = sorted(paths)
    more = len(names) - MAX_FILES_NAMED
    return ", ".join(names[:MAX_FILES_NAMED]) + (f" and {more} more" if more > 0 else "")


def runs_text(count: int, one: str, many: str) -> str:
    """Return how many finished runs, with the verb that goes with the number."""
    return f"{count} finished run{'' if count == 1 else 's'} {one if count == 1 else many}"
