"""Setting aside the results of stale runs, so that they are trained again. Imports no torch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable

from skd.common.lease import LeaseHeldError, hold_lease
from skd.common.terminal import printable
from skd.store.stale import FinishedRun, finished_runs, stale_lines
from skd.store.store import Store, StoreError
from skd.study.expansion import Cell, Expansion

SUPERSEDED_FOLDER = "superseded"


def print_stale_runs(expansion: Expansion, store: Store, cells: Iterable[Cell], study: str) -> None:
    """Print warnings about the code and the teachers of the finished runs of some cells.

    Args:
        expansion: the study.
        store: the store with its runs.
        cells: the cells to check.
        study: the study as the user named it.
    """
    for line in stale_lines(study, finished_runs(expansion, store, cells)):
        print(line, file=sys.stderr, flush=True)


def supersede_stale_runs(
    expansion: Expansion,
    store: Store,
    cells: Iterable[Cell] = (),
    seeds: Collection[int] | None = None,
    teachers: Collection[str] = (),
) -> None:
    """Set aside the results of stale runs and teachers, so that they are trained again.

    If the results of one cannot be set aside, because another process trains it, this is printed.

    Args:
        expansion: the study.
        store: the store with its runs.
        cells: the cells to check.
        seeds: seeds of their runs; None: all.
        teachers: names of the teachers to check.
    """
    cells = list(cells)
    selected = [store.teacher(expansion.teacher(name).id) for name in teachers]
    for cell in cells:
        selected += [
            store.run(run) for seed, run in cell.runs.items() if not seeds or seed in seeds
        ]
    for run in finished_runs(expansion, store, cells, teachers):
        if not run.stale or run.entry not in selected:
            continue
        try:
            is_superseded = supersede_results(run)
        except (StoreError, LeaseHeldError) as error:
            print(printable(f"NOT RESTARTED {run.label}: {error}"), file=sys.stderr, flush=True)
        else:
            if is_superseded:
                print(f"{run.label}: restarted from the beginning", flush=True)


def supersede_results(run: FinishedRun) -> bool:
    """Move the results of a finished run or teacher into a subfolder.

    Returns:
        True if they were moved; False if another process has moved or replaced them already.

    Raises:
        LeaseHeldError: another process trains it.
        StoreError: its record cannot be read.
    """
    entry = run.entry
    with hold_lease(entry.folder, wait=False):
        record = entry.record()
        if record is None or record.finished_at != run.finished_at:
            return False
        folder = entry.folder / SUPERSEDED_FOLDER / record.finished_at.replace(":", "")
        folder.mkdir(parents=True, exist_ok=True)
        entry.card_path.unlink(missing_ok=True)  # if killed now, it is rebuilt from the record
        entry.record_path.replace(folder / entry.record_path.name)  # the run is now unfinished
        for path in (entry.weights_path, entry.logits_path, entry.objective_path):
            if path.is_file():
                path.replace(folder / path.name)
        for path in [*entry.folder.glob("checkpoint*.pt"), entry.folder / "execution.json"]:
            path.unlink(missing_ok=True)
        for path in entry.folder.glob("views-*"):  # outputs of the old weights
            shutil.rmtree(path)
        return True
