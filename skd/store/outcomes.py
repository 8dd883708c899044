"""What has come of cells and teachers, from the store's files alone. Imports no torch."""

from __future__ import annotations

from skd.store.records import CellResult, RunOutcome
from skd.store.store import Store, StoreError, run_outcome
from skd.study.expansion import Cell, Expansion


def cell_result(expansion: Expansion, cell: Cell, store: Store) -> CellResult:
    """Return what has come of a cell's runs so far."""
    runs = tuple(run_outcome(store.run(identity), seed) for seed, identity in cell.runs.items())
    return CellResult(study=expansion.study, cell=cell.key, runs=runs)


def teacher_outcome(store: Store, identity: str) -> tuple[RunOutcome, str]:
    """Return what has come of a teacher, as of a run, and its accuracy as text."""
    entry = store.teacher(identity)
    try:
        card = entry.card()
    except StoreError as error:
        return RunOutcome(id=identity, seed=0, outcome="unreadable", reason=str(error)), ""
    if card is not None:
        return RunOutcome(id=identity, seed=0, outcome="done"), f"{card.test_top1:.2f}"
    found = run_outcome(entry, 0)
    if found.outcome == "done":  # its card is not yet there
        return RunOutcome(id=identity, seed=0, outcome="interrupted"), ""
    return found, ""
