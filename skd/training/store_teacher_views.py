"""Store the views of a teacher: show the progress and print the result."""

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
    """Return the cards of a teacher's views. Missing views are made first.

    Args:
        expansion: the study.
        name: name of the teacher in the study.
        store: has the teacher.
        outputs, precision, execution, wait, should_stop: as in `make_teacher_views`, whose errors
            this function raises, too.
    """
    rows = expansion.images.train_images * expansion.images.views
    start: list[tuple[int, float]] = []  # of the first call: views done before, and the time
    with run_progress(f"views of {name}", 1, rows) as progress:

        def on_progress(done: int, all_views: int) -> None:
            now = time.monotonic()
            first, since = start[0] if start else (done, now)
            start[:] = [(first, since)]
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
