"""What the runs of a study need first: its teachers, and stored views where they save time."""

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
from skd.planning.views_choice import (
    ViewsConfig,
    ViewsPlan,
    check_views_request,
    plan_views,
)
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
    """Make the teachers, and their stored views, that the runs of some cells need.

    After the failure of one teacher the others are still made. If another process makes the views,
    this waits for it.

    Args:
        expansion: the study.
        cells: the cells whose runs will be trained.
        store: of all results.
        options: how teachers are trained. ``teacher_source`` says which views are requested.
        workers: processes that decode photos, as in `Resources`.

    Returns:
        The names of the teachers that failed.

    Raises:
        UnstorableViewsError: stored views were requested, and a cell's recipe forbids them.
        InterruptedRunError: a stop was requested. The work so far has been saved.
        DeviceFailedError: the device, or one process of several, failed. No run of this process can
            continue.
    """
    views_config = _views_config(options)
    check_views_request(cells, views_config.teacher_views)
    resources, failed = Resources(workers), set()
    for name in dict.fromkeys(cell.teacher for cell in cells if cell.teacher):
        try:
            ensure_teacher(expansion.teacher(name), store, options, resources)
        except (InterruptedRunError, DeviceFailedError):
            raise
        except (SkdError, OSError) as error:
            status = "FAILED" if isinstance(error, RunFailedError) else f"NOT MADE teacher {name}:"
            print(printable(f"{status} {error_text(error)}"), file=sys.stderr, flush=True)
            failed.add(name)
    entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
    keys = {cell.key for cell in cells}
    for plan in plan_views(expansion, entries, views_config).values():
        if plan.teacher not in failed and plan.cells & keys:
            _store(plan, expansion, store, options)
    return failed


def _views_config(options: RunOptions) -> ViewsConfig:
    """Return which views to store, for the options of the runs.

    If the options request stored outputs in a precision, the runs need them even if storing them
    saves no time.
    """
    if options.teacher_source is None:
        return ViewsConfig()
    if options.teacher_source == "live":
        return ViewsConfig(teacher_views="never")
    return ViewsConfig(teacher_views="always", teacher_views_precision=options.teacher_source)


def _store(plan: ViewsPlan, expansion: Expansion, store: Store, options: RunOptions) -> None:
    """Store the views of a teacher. If that fails, its runs have a live teacher."""
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
            should_stop=options.should_stop,
        )
    except (InterruptedRunError, DeviceFailedError):
        raise
    except (SkdError, OSError) as error:
        message = printable(f"views of {plan.teacher} are not stored: {error}")
        print(message, file=sys.stderr, flush=True)
