"""`skd teacher-views`: a teacher's outputs on all views, stored. Torch is imported once it runs."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from skd.files import write_json
from skd.store import Store
from skd.study import load_expansion
from skd.training.commands import (
    RESULTS,
    Device,
    IfLeased,
    Leased,
    Output,
    Results,
    Study,
    TeacherName,
    Threads,
    stoppable,
)


class ViewsOutput(StrEnum):
    """What is stored of a teacher."""

    logits = "logits"
    pooled = "pooled"


class StoredPrecision(StrEnum):
    """In which precision."""

    float16 = "float16"
    float32 = "float32"


Outputs = Annotated[
    list[ViewsOutput] | None,
    typer.Option(help="logits, or the pooled features before them; may be repeated [logits]"),
]
Stored = Annotated[StoredPrecision, typer.Option(help="of the files")]


def teacher_views(
    study: Study,
    name: TeacherName,
    outputs: Outputs = None,
    precision: Stored = StoredPrecision.float16,
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    if_leased: Leased = IfLeased.refuse,
    output: Output = None,
) -> None:
    """Store a teacher's outputs on every view of every training image, for all runs to look up."""
    from skd.training.execution import choose
    from skd.training.progress import run_progress
    from skd.training.teacher_views import make_teacher_views

    expansion = load_expansion(study, results)
    entry = Store(results).teacher(expansion.teacher(name).id)
    rows = expansion.images.train_images * expansion.images.views
    begun: list[tuple[int, float]] = []  # at the first call: views done before, and when
    with stoppable() as stopping, run_progress(f"views of {name}", 1, rows) as progress:

        def on_progress(done: int, all_views: int) -> None:
            now = time.monotonic()
            first, since = begun[0] if begun else (done, now)
            begun[:] = [(first, since)]
            progress.step(done, None, (done - first) / max(now - since, 1e-9))

        cards = make_teacher_views(
            entry,
            expansion.dataset,
            [chosen.value for chosen in outputs or [ViewsOutput.logits]],
            precision.value,
            choose(device, threads),
            wait=if_leased is IfLeased.wait,
            stopping=stopping,
            on_progress=on_progress,
        )
    for card in cards:
        count, views, width = card.shape
        print(
            f"views of {name}: {card.output} of {count} images x {views} views x {width}, "
            f"{card.precision}, at most {card.largest_difference:.2g} from the live teacher"
        )
    if output:
        write_json(output, {"files": [card.model_dump(mode="json") for card in cards]})
