"""What a study's runs wait for: its teachers, and their stored views where these pay."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from skd.common.errors import (
    DeviceFailedError,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    error_text,
)
from skd.common.terminal import printable
from skd.planning.views_choice import ViewsConfig, ViewsPlan, plan_views
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion
from skd.training.resources import Resources
from skd.training.runs import RunOptions
from skd.training.store_teacher_views import store_teacher_views
from skd.training.teacher_setup import ensure_teacher


def prepare_teachers(
    expansion: Expansion,
    cells: Sequence[Cell],
    store: Store,
    options: RunOptions,
    workers: int | None,
) -> set[str]:
    """Make the teachers and the views that runs of some cells need.

    One teacher's failure does not keep the others from being made. Views that another process
    makes are waited for.

    Args:
        expansion: the study.
        cells: whose runs will be trained.
        store: where everything is kept.
        options: how teachers are trained; its ``teacher`` says which views are wanted.
        workers: processes that decode photos, as `Resources` takes it.

    Returns:
        The names of the teachers that failed.

    Raises:
        InterruptedRunError: asked to stop; what was under way has been saved.
        DeviceFailedError: the device failed: nothing more can be done in this process.
    """
    materials, failed = Resources(workers), set()
    for name in dict.fromkeys(cell.teacher for cell in cells if cell.teacher):
        try:
            ensure_teacher(expansion.teacher(name), store, options, materials)
        except (InterruptedRunError, DeviceFailedError):
            raise
        except (SkdError, OSError) as error:
            said = "FAILED" if isinstance(error, RunFailedError) else f"NOT MADE teacher {name}:"
            print(printable(f"{said} {error_text(error)}"), file=sys.stderr, flush=True)
            failed.add(name)
    entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
    keys = {cell.key for cell in cells}
    for plan in plan_views(expansion, entries, _wish(options)).values():
        if plan.teacher not in failed and plan.cells & keys:
            _store(plan, expansion, store, options)
    return failed


def _wish(options: RunOptions) -> ViewsConfig:
    """Return which views are wanted: where they pay, in the precision that was asked for, or none.

    Runs that ask for stored outputs in a precision need them, whether they pay or not.
    """
    if options.teacher is None:
        return ViewsConfig()
    if options.teacher == "live":
        return ViewsConfig(teacher_views="never")
    return ViewsConfig(teacher_views="always", teacher_views_precision=options.teacher)


def _store(plan: ViewsPlan, expansion: Expansion, store: Store, options: RunOptions) -> None:
    """Store a teacher's views; where that cannot be, its runs ask it live."""
    if plan.done:
        return
    try:
        store_teacher_views(
            expansion,
            plan.teacher,
            store,
            plan.outputs,
            plan.precision,
            options.execution,
            wait=True,
            should_stop=options.stopping,
        )
    except (InterruptedRunError, DeviceFailedError):
        raise
    except (SkdError, OSError) as error:
        said = printable(f"views of {plan.teacher} are not stored: {error}")
        print(said, file=sys.stderr, flush=True)
