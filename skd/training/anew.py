"""Finished trainings that are begun anew, since the code or the teacher has changed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable

from skd.code.stale import finished_runs, stale_lines
from skd.lease import lease
from skd.store import Entry, Store
from skd.study import Cell, Expansion
from skd.teacher_views import ViewsCard
from skd.training.teacher_views import changes_of_views

SUPERSEDED = "superseded"


def tell_stale(expansion: Expansion, store: Store, cells: Iterable[Cell]) -> None:
    """Print what a person must know of the code of the finished runs among some cells."""
    for line in stale_lines(expansion.study, finished_runs(expansion, store, cells)):
        print(line, file=sys.stderr, flush=True)


def begin_stale_anew(
    expansion: Expansion,
    store: Store,
    cells: Iterable[Cell] = (),
    seeds: Collection[int] | None = None,
    teachers: Collection[str] = (),
) -> None:
    """Take the results of stale runs and teachers away, so that they are trained anew.

    Args:
        expansion: the study.
        store: where they are.
        cells: whose runs are looked at.
        seeds: of these runs; none: all.
        teachers: names of the teachers that are looked at, with their stored views.

    Raises:
        LeaseHeldError: another process trains one of them.
    """
    cells = list(cells)
    asked = [store.teacher(expansion.teacher(name).id) for name in teachers]
    for cell in cells:
        asked += [store.run(run) for seed, run in cell.runs.items() if not seeds or seed in seeds]
    for name in teachers:
        _remove_stale_views(store.teacher(expansion.teacher(name).id), name)
    for run in finished_runs(expansion, store, cells, teachers):
        if run.stale and run.entry in asked:
            begin_anew(run.entry)
            print(f"{run.label}: begun anew", flush=True)


def _remove_stale_views(teacher: Entry, name: str) -> None:
    """Remove a teacher's views that other code than today's has stored."""
    card = teacher.card()
    for path in [*teacher.folder.glob("views-*/*.json")] if card else ():
        if not path.is_file():  # removed with its folder
            continue
        views = ViewsCard.model_validate_json(path.read_text(encoding="utf-8"))
        if changes_of_views(views, card.network):
            shutil.rmtree(path.parent)
            print(f"views of {name}: stored anew", flush=True)


def begin_anew(entry: Entry) -> None:
    """Take a finished run's or teacher's results away; its record is kept in a subfolder.

    Raises:
        LeaseHeldError: another process trains it.
    """
    with lease(entry.folder, wait=False):
        if (record := entry.record()) is None:  # another process has just begun it anew
            return
        kept = entry.folder / SUPERSEDED
        kept.mkdir(exist_ok=True)
        when = record.finished_at.replace(":", "")
        entry.card_path.unlink(missing_ok=True)  # made again from the record, if this ends here
        entry.record_path.replace(kept / f"record-{when}.json")  # from now on it is not finished
        for path in entry.folder.glob("views-*"):  # what the old weights said of every image
            shutil.rmtree(path)
        for path in (entry.weights_path, entry.logits_path, entry.kept_path):
            path.unlink(missing_ok=True)
        for pattern in ("execution.json", "checkpoint*.pt"):
            for path in entry.folder.glob(pattern):
                path.unlink()
