"""The number of runs that share this machine's GPU. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skd.common.gpu_state import gpu_state
from skd.planning.estimates import estimate_run, local_device
from skd.planning.side_by_side import runs_side_by_side
from skd.planning.timings import load_timings
from skd.store.store import Store
from skd.store.teacher_view_files import VIEWS_PRECISIONS, ViewsFile, storable_outputs
from skd.study.expansion import Cell, Expansion


def choose_lanes(
    requested: int | None,
    expansion: Expansion,
    cells: Sequence[Cell],
    store: Store,
    runs: int,
    attempt: int = 1,
) -> int:
    """Return how many runs to train side by side on this machine's GPU.

    Args:
        requested: the user's choice, or ``None``.
        expansion: the study.
        cells: the cells whose runs are trained.
        store: the store, with the timings of finished runs.
        runs: how many runs are unfinished.
        attempt: the number of the job's attempt, from 1.
    """
    state = gpu_state()
    if requested is not None or state is None:
        return runs_side_by_side(requested, runs, 0, 0, 1.0, attempt)
    timings = load_timings(store)
    device = local_device(expansion, timings, state.name)
    views = {cell.key: _views(expansion, cell, store) for cell in cells}
    estimates = [estimate_run(expansion, c, timings, device, bool(views[c.key])) for c in cells]
    bytes_each = max(estimate.device_bytes for estimate in estimates)
    utilisation = max(estimate.utilisation_or_one for estimate in estimates)
    shared = {path: path.stat().st_size for paths in views.values() for path in paths}
    free = max(1, state.free_bytes - sum(shared.values()))
    return runs_side_by_side(None, runs, free, bytes_each or 1, utilisation, attempt)


def _views(expansion: Expansion, cell: Cell, store: Store) -> list[Path]:
    """Return the files of the teacher's views that a cell's runs use; empty for a live teacher."""
    outputs = storable_outputs(cell.spec.recipe, cell.needs)
    if cell.teacher is None or not outputs:
        return []
    entry = store.teacher(expansion.teacher(cell.teacher).id)
    dataset, code = expansion.dataset, expansion.views_code_of(cell.teacher)
    for precision in VIEWS_PRECISIONS:
        files = [ViewsFile(entry, dataset, output, precision, code) for output in outputs]
        if all(file.path.is_file() and file.is_made() for file in files):
            return [file.path for file in files]
    return []
