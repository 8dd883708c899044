"""`skd teacher-views`: a teacher's outputs on all views, stored. Torch is imported once it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from skd.cli.options import (
    RESULTS,
    Device,
    IfLeased,
    Leased,
    Output,
    Results,
    Study,
    TeacherName,
    Threads,
)
from skd.common.files import write_json
from skd.common.stopping import stoppable
from skd.store.store import Store
from skd.study.expansion import load_expansion
from skd.study.sheet import StudyError


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
    from skd.training.code_here import note_code

    note_code()
    from skd.training.execution import choose
    from skd.training.views_of_study import store_views

    expansion = load_expansion(study, results)
    teacher = Store(results).teacher(expansion.teacher(name).id)
    if teacher.card() is None:  # said here, it leaves no folder
        raise StudyError(
            f"the teacher {teacher.id} is not in the store; first: skd teacher {study} {name}"
        )
    with stoppable() as stopping:
        cards = store_views(
            expansion,
            name,
            Store(results),
            [chosen.value for chosen in outputs or [ViewsOutput.logits]],
            precision.value,
            choose(device, threads),
            wait=if_leased is IfLeased.wait,
            stopping=stopping,
        )
    if output:
        write_json(output, {"files": [card.model_dump(mode="json") for card in cards]})
