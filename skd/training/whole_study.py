"""What a study's runs wait for: its teachers, and their stored views where these pay."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from skd.errors import DeviceFailedError, InterruptedRunError, RunFailedError, SkdError
from skd.planning.teacher_views import ViewsPlan, ViewsWish, plan_views
from skd.store import Store
from skd.study import Cell, Expansion
from skd.training.materials import Materials
from skd.training.runs import Options
from skd.training.store_views import store_views
from skd.training.teacher_views import TeacherViewsError
from skd.training.teachers import ready_teacher


def make_ready(
    expansion: Expansion,
    cells: Sequence[Cell],
    store: Store,
    options: Options,
    materials: Materials,
) -> set[str]:
    """Make the teachers and the views that unfinished runs of some cells need.

    One teacher's failure does not keep the others from being made.

    Args:
        expansion: the study.
        cells: whose runs will be trained.
        store: where everything is kept.
        options: how teachers are trained; its ``teacher`` says whether views are wanted at all.
        materials: shared with the runs.

    Returns:
        The names of the teachers that failed.

    Raises:
        InterruptedRunError: asked to stop; what was under way has been saved.
        DeviceFailedError: the device failed: nothing more can be done in this process.
    """
    unfinished = [
        cell for cell in cells if any(store.run(run).record() is None for run in cell.runs.values())
    ]
    failed = set()
    for name in dict.fromkeys(cell.teacher for cell in unfinished if cell.teacher):
        try:
            ready_teacher(expansion.teacher(name), store, options, materials)
        except (InterruptedRunError, DeviceFailedError):
            raise
        except (SkdError, OSError) as error:
            said = "FAILED" if isinstance(error, RunFailedError) else f"NOT MADE teacher {name}:"
            print(f"{said} {error}", file=sys.stderr, flush=True)
            failed.add(name)
    if options.teacher != "live":
        entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
        keys = {cell.key for cell in unfinished}
        for plan in plan_views(expansion, entries, ViewsWish()).values():
            if plan.teacher not in failed and plan.cells & keys:
                _store(plan, expansion, store, options)
    return failed


def _store(plan: ViewsPlan, expansion: Expansion, store: Store, options: Options) -> None:
    """Store a teacher's views; where that cannot be, its runs ask it live."""
    if plan.done:
        return
    try:
        store_views(
            expansion,
            plan.teacher,
            store,
            plan.outputs,
            plan.precision,
            options.execution,
            wait=True,
            stopping=options.stopping,
        )
    except TeacherViewsError as error:
        print(f"views of {plan.teacher} are not stored: {error}", file=sys.stderr, flush=True)
