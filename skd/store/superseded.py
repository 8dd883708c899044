"""Finished trainings that are begun anew, since the code or the teacher has changed."""

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
    """Print what a person must know of the code of the finished runs among some cells.

    Args:
        expansion: the study.
        store: where its runs are.
        cells: whose runs are looked at.
        study: what the user named it by.
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
    """Put the results of stale runs and teachers aside, so that they are trained anew.

    One that cannot be, as another process trains it, is told and left.

    Args:
        expansion: the study.
        store: where they are.
        cells: whose runs are looked at.
        seeds: of these runs; none: all.
        teachers: names of the teachers that are looked at.
    """
    cells = list(cells)
    asked = [store.teacher(expansion.teacher(name).id) for name in teachers]
    for cell in cells:
        asked += [store.run(run) for seed, run in cell.runs.items() if not seeds or seed in seeds]
    for run in finished_runs(expansion, store, cells, teachers):
        if not run.stale or run.entry not in asked:
            continue
        try:
            begun = supersede_results(run)
        except (StoreError, LeaseHeldError) as error:
            print(printable(f"NOT BEGUN ANEW {run.label}: {error}"), file=sys.stderr, flush=True)
        else:
            if begun:
                print(f"{run.label}: begun anew", flush=True)


def supersede_results(run: FinishedRun) -> bool:
    """Put a finished run's or teacher's results into a subfolder; return whether that was done.

    It is not where another process has done so since the run was looked at.

    Raises:
        LeaseHeldError: another process trains it.
        StoreError: its record cannot be read.
    """
    entry = run.entry
    with hold_lease(entry.folder, wait=False):
        record = entry.record()
        if record is None or record.finished_at != run.finished_at:
            return False
        kept = entry.folder / SUPERSEDED_FOLDER / record.finished_at.replace(":", "")
        kept.mkdir(parents=True, exist_ok=True)
        entry.card_path.unlink(missing_ok=True)  # made again from the record, if this ends here
        entry.record_path.replace(kept / entry.record_path.name)  # from now on it is not finished
        for path in (entry.weights_path, entry.logits_path, entry.objective_path):
            if path.is_file():
                path.replace(kept / path.name)
        for path in [*entry.folder.glob("checkpoint*.pt"), entry.folder / "execution.json"]:
            path.unlink(missing_ok=True)
        for path in entry.folder.glob("views-*"):  # what the old weights said of every image
            shutil.rmtree(path)
        return True
