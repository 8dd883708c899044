"""Outcomes of runs, cells and teachers, from the files in the store. Imports no torch."""

from __future__ import annotations

from skd.common.lease import read_holder
from skd.store.json_files import StoreError
from skd.store.records import CellResult, RunOutcome
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Cell, Expansion


def run_outcome(entry: StoreEntry, seed: int) -> RunOutcome:
    """Return the outcome of a run so far.

    A run is unreadable if its record cannot be used, or if nobody trains it and its failure note
    cannot be used.
    """
    try:
        record = entry.record()
        if record is not None:
            return RunOutcome(
                id=entry.id,
                seed=seed,
                outcome="done",
                last_top1=record.last.top1,
                best_top1=record.best.top1,
            )
        holder = read_holder(entry.folder)
        if holder is not None and holder.is_alive():
            return RunOutcome(id=entry.id, seed=seed, outcome="running", reason=str(holder))
        failure = entry.failure()
    except StoreError as error:
        return RunOutcome(id=entry.id, seed=seed, outcome="unreadable", reason=str(error))
    if failure is not None:
        return RunOutcome(id=entry.id, seed=seed, outcome="failed", reason=failure.reason)
    was_started = any(entry.folder.glob("checkpoint*.pt"))
    return RunOutcome(id=entry.id, seed=seed, outcome="interrupted" if was_started else "missing")


def cell_result(expansion: Expansion, cell: Cell, store: Store) -> CellResult:
    """Return the outcomes of a cell's runs so far."""
    runs = tuple(run_outcome(store.run(identity), seed) for seed, identity in cell.runs.items())
    return CellResult(study=expansion.study, cell=cell.key, runs=runs)


def teacher_outcome(store: Store, identity: str) -> tuple[RunOutcome, float | None]:
    """Return the outcome of a teacher, and its top-1 in percent; ``None`` if not measured."""
    entry = store.teacher(identity)
    try:
        card = entry.card()
    except StoreError as error:
        return RunOutcome(id=identity, seed=0, outcome="unreadable", reason=str(error)), None
    if card is not None:
        return RunOutcome(id=identity, seed=0, outcome="done"), card.test_top1
    outcome = run_outcome(entry, 0)
    if outcome.outcome == "done":  # trained, but its card is missing
        return RunOutcome(id=identity, seed=0, outcome="interrupted"), None
    return outcome, None
