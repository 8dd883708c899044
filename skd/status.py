"""What a study has done and what is left, from the store's files alone. Imports no torch."""

from __future__ import annotations

import statistics

from rich import box
from rich.table import Table

from skd.records import CellOutcome, CellResult
from skd.store import Store, StoreError, outcome
from skd.study import Cell, Expansion

STATES = {
    "done": "done",
    "running": "running",
    "failed": "failed",
    "interrupted": "begun",
    "missing": "left",
}


def cell_result(expansion: Expansion, cell: Cell, store: Store) -> CellResult:
    """Return what has come of a cell's runs so far."""
    runs = tuple(_outcome(store, identity, seed) for seed, identity in cell.runs.items())
    return CellResult(study=expansion.study, cell=cell.key, runs=runs)


def status_table(expansion: Expansion, store: Store) -> tuple[Table, list[str]]:
    """Return a study's state as a table, and a line for each failed, running or unreadable run."""
    title = f"{expansion.study}: {expansion.title}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("cell", no_wrap=True)
    for title in STATES.values():
        table.add_column(title, justify="right")
    table.add_column("last top-1, %", justify="right")
    lines = []
    for node in expansion.teachers:
        card = store.teacher(node.id).card()
        accuracy = f"{card.test_top1:.2f}" if card else ""
        counts = _teacher_counts(store, node.id)
        table.add_row(f"teacher {node.name}", *counts, accuracy)
    totals = dict.fromkeys(STATES, 0)
    for cell in expansion.cells:
        runs = cell_result(expansion, cell, store).runs
        counts = {state: sum(run.outcome == state for run in runs) for state in STATES}
        totals = {state: totals[state] + counts[state] for state in STATES}
        accuracies = [run.last_top1 for run in runs if run.last_top1 is not None]
        mean = f"{statistics.fmean(accuracies):.2f}" if accuracies else ""
        table.add_row(cell.key, *(str(count or "") for count in counts.values()), mean)
        lines += [
            f"{cell.key} seed {run.seed} ({run.id}) {run.outcome}: {run.reason}"
            for run in runs
            if run.reason
        ]
    table.add_section()
    table.add_row("all runs", *(str(count) for count in totals.values()), "")
    return table, lines


def _teacher_counts(store: Store, identity: str) -> list[str]:
    entry = store.teacher(identity)
    if entry.card() is not None:
        state = "done"
    else:
        state = outcome(entry, 0).outcome
        state = "interrupted" if state == "done" else state  # trained, its card not yet written
    return ["1" if name == state else "" for name in STATES]


def _outcome(store: Store, identity: str, seed: int) -> CellOutcome:
    try:
        return outcome(store.run(identity), seed)
    except StoreError as error:
        return CellOutcome(id=identity, seed=seed, outcome="failed", reason=str(error))
