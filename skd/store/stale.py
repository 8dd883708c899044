"""Finished runs whose code or teacher has changed since. Imports no torch."""

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
MAX_FILES_NAMED = 4  # in a message


@dataclass(frozen=True)
class FinishedRun:
    """A finished run or trained teacher, compared with the current code.

    Attributes:
        label: its name for users.
        entry: its folder.
        changed: how its code has changed since; ``None`` if its code is not known.
        other_teacher: whether its teacher in the store now has other weights than during the run.
        finished_at: from its record.
    """

    label: str
    entry: StoreEntry
    changed: CodeChanges | None
    other_teacher: bool = False
    finished_at: str = ""

    @property
    def state(self) -> str:
        """The code that trained it: "today's", "unknown", or a digest of the changes."""
        return code_state_of(self.changed)

    @property
    def stale(self) -> bool:
        """Whether training it again may give other numbers."""
        return bool(self.changed) or self.other_teacher


def code_changes_of(
    code: Mapping[str, str] | None, today: Mapping[str, str], accepted: Iterable[Acceptance]
) -> CodeChanges | None:
    """Return how the code of a record has changed since; ``None`` if its code is not known.

    Args:
        code: digests in the record, by path.
        today: digests of the run's files now, by path; empty: not known.
        accepted: changes that do not change the numbers.
    """
    if code is None or not today or any(name.startswith(UNKNOWN_CODE) for name in code.values()):
        return None
    return changes_since(code, today, accepted)


def code_state_of(changed: CodeChanges | None) -> str:
    """Return a word or a digest that is equal for runs with the same changes."""
    if changed is None:
        return UNKNOWN_CODE
    return digest(changed) if changed else TODAYS_CODE


def finished_runs(
    expansion: Expansion,
    store: Store,
    cells: Iterable[Cell] | None = None,
    teachers: Iterable[str] = (),
) -> list[FinishedRun]:
    """Return the finished runs of some cells of a study, and its trained teachers.

    Records and cards that cannot be read are skipped: other functions report them.

    Args:
        expansion: the study.
        store: the store with its runs.
        cells: cells of the runs; None: all cells of the study.
        teachers: names of teachers in addition to those of the cells.
    """
    cells = expansion.cells if cells is None else tuple(cells)
    accepted = read_acceptances()
    runs: dict[Path, FinishedRun] = {}  # one folder may belong to a run and to a teacher

    def add_if_finished(
        label: str, entry: StoreEntry, spec: RunSpec, card: TeacherCard | None
    ) -> None:
        summary = _read_summary(entry)
        if summary is None:
            return
        today = expansion.code_of(spec)
        changed = code_changes_of(summary.code, today, accepted)
        teacher_sha256 = summary.teacher.get("sha256") if summary.teacher else None
        other = None not in (card, teacher_sha256) and card.sha256 != teacher_sha256
        run = FinishedRun(label, entry, changed, other, summary.finished_at)
        if not run.stale or entry.is_finished():  # an unusable record is reported elsewhere
            runs[entry.folder] = run

    cards = {}
    cell_teachers = [cell.teacher for cell in cells if cell.teacher]
    for name in dict.fromkeys([*cell_teachers, *teachers]):
        node = expansion.teacher(name)
        entry = store.teacher(node.id)
        try:
            cards[name] = entry.card()
        except (StoreError, OSError):
            cards[name] = None
        if node.spec.kind == "trained":
            add_if_finished(f"teacher {name}", entry, node.spec.run, None)
    for cell in cells:
        for seed, identity in cell.runs.items():
            label, entry = f"{cell.key} seed {seed}", store.run(identity)
            add_if_finished(label, entry, cell.run(seed), cards.get(cell.teacher))
    return list(runs.values())


class _RecordSummary(BaseModel):
    """The fields of a record that this module needs; reading its epochs takes ten times longer."""

    finished_at: str
    code: dict[str, str] | None = None
    teacher: dict[str, Any] | None = None


def _read_summary(entry: StoreEntry) -> _RecordSummary | None:
    try:
        return _RecordSummary.model_validate_json(entry.record_path.read_bytes())
    except (OSError, ValueError):
        return None


def stale_lines(study: str, runs: Iterable[FinishedRun]) -> list[str]:
    """Return warnings about the code and the teachers of a study's finished runs, as lines."""
    runs = list(runs)
    changed = [run for run in runs if run.changed]
    other = [run for run in runs if run.other_teacher]
    unknown = sum(run.changed is None for run in runs)
    lines = []
    if changed:
        counts = Counter(path for run in changed for path in run.changed)
        lines.append(
            f"{runs_text(len(changed), 'was', 'were')} trained by a different version of the code "
            f"({files_text(counts)}): skd train {study} --stale trains them again; if the change "
            f"does not change the numbers: skd accept {study}"
        )
    if other:
        lines.append(
            f"{runs_text(len(other), 'was', 'were')} trained with other weights of the teacher "
            f"than those in the store: skd train {study} --stale trains them again"
        )
    if unknown:
        lines.append(
            f"{runs_text(unknown, 'does', 'do')} not say which code trained "
            f"{'it' if unknown == 1 else 'them'}: code unknown"
        )
    return lines


def files_text(paths: Iterable[str]) -> str:
    """Return the names of the first few files, and the number of the others."""
    names = sorted(paths)
    more = len(names) - MAX_FILES_NAMED
    return ", ".join(names[:MAX_FILES_NAMED]) + (f" and {more} more" if more > 0 else "")


def runs_text(count: int, singular: str, plural: str) -> str:
    """Return a number of finished runs, with a verb in the singular or the plural."""
    return f"{count} finished run{'' if count == 1 else 's'} {singular if count == 1 else plural}"
