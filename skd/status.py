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
        state, accuracy, reason = _teacher_state(store, node.id)
        counts = ["1" if name == state else "" for name in STATES]
        table.add_row(f"teacher {node.name}", *counts, accuracy)
        if reason:
            lines.append(f"teacher {node.name} ({node.id}) {state}: {reason}")
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


def _teacher_state(store: Store, identity: str) -> tuple[str, str, str | None]:
    """Return a teacher's state, its accuracy as text, and a reason if there is one."""
    entry = store.teacher(identity)
    try:
        card = entry.card()
        if card is not None:
            return "done", f"{card.test_top1:.2f}", None
        found = outcome(entry, 0)
    except StoreError as error:
        return "failed", "", str(error)
    state = "interrupted" if found.outcome == "done" else found.outcome  # its card is not yet there
    return state, "", found.reason


def _outcome(store: Store, identity: str, seed: int) -> CellOutcome:
    try:
        return outcome(store.run(identity), seed)
    except StoreError as error:
        return CellOutcome(id=identity, seed=seed, outcome="failed", reason=str(error))
