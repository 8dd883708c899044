"""A teacher's views stored, with its progress shown and its outcome printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from skd.store.store import Store
from skd.store.teacher_view_files import ViewsCard, ViewsOutput, ViewsPrecision
from skd.study.expansion import Expansion
from skd.training.execution import Execution
from skd.training.progress import run_progress
from skd.training.stored_views import make_teacher_views


def store_teacher_views(
    expansion: Expansion,
    name: str,
    store: Store,
    outputs: Sequence[ViewsOutput],
    precision: ViewsPrecision,
    execution: Execution,
    wait: bool,
    should_stop: Callable[[], bool],
) -> list[ViewsCard]:
    """Return the cards of a teacher's views, making those that are missing.

    Args:
        expansion: the study.
        name: the teacher's name in it.
        store: with the teacher.
        outputs, precision, execution, wait, stopping: as `make_teacher_views` takes them, and
            its errors are those of this function.
    """
    rows = expansion.images.train_images * expansion.images.views
    begun: list[tuple[int, float]] = []  # at the first call: views done before, and when
    with run_progress(f"views of {name}", 1, rows) as progress:

        def on_progress(done: int, all_views: int) -> None:
            now = time.monotonic()
            first, since = begun[0] if begun else (done, now)
            begun[:] = [(first, since)]
            progress.step(done, None, (done - first) / max(now - since, 1e-9))

        cards = make_teacher_views(
            store.teacher(expansion.teacher(name).id),
            expansion.dataset,
            outputs,
            precision,
            execution,
            wait=wait,
            should_stop=should_stop,
            on_progress=on_progress,
        )
    for card in cards:
        count, views, width = card.shape
        print(
            f"views of {name}: {card.output} of {count} images x {views} views x {width}, "
            f"{card.precision}, at most {card.largest_difference:.2g} from the live teacher"
        )
    return cards
