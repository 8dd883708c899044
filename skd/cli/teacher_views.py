"""`skd teacher-views`: a teacher's outputs on all views, stored. Torch is imported once it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from skd.cli.options import (
    DEFAULT_RESULTS,
    DeviceOption,
    IfLeased,
    IfLeasedOption,
    OutputOption,
    ResultsOption,
    StudyArgument,
    TeacherArgument,
    ThreadsOption,
)
from skd.common.files import write_json
from skd.common.stopping import handle_stop_signals
from skd.store.store import Store
from skd.study.expansion import load_expansion
from skd.study.sheet import StudyError


class ViewsOutputChoice(StrEnum):
    """What is stored of a teacher."""

    logits = "logits"
    pooled = "pooled"


class StoredPrecision(StrEnum):
    """In which precision."""

    float16 = "float16"
    float32 = "float32"


ViewsOutputsOption = Annotated[
    list[ViewsOutputChoice] | None,
    typer.Option(help="logits, or the pooled features before them; may be repeated [logits]"),
]
ViewsPrecisionOption = Annotated[StoredPrecision, typer.Option(help="of the files")]


def teacher_views(
    study: StudyArgument,
    name: TeacherArgument,
    outputs: ViewsOutputsOption = None,
    precision: ViewsPrecisionOption = StoredPrecision.float16,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    if_leased: IfLeasedOption = IfLeased.refuse,
    output: OutputOption = None,
) -> None:
    """Store a teacher's outputs on every view of every training image, for all runs to look up."""
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.training.execution import choose_execution
    from skd.training.store_teacher_views import store_teacher_views

    expansion = load_expansion(study, results)
    teacher = Store(results).teacher(expansion.teacher(name).id)
    if teacher.card() is None:  # said here, it leaves no folder
        raise StudyError(
            f"the teacher {teacher.id} is not in the store; first: skd teacher {study} {name}"
        )
    with handle_stop_signals() as stopping:
        cards = store_teacher_views(
            expansion,
            name,
            Store(results),
            [chosen.value for chosen in outputs or [ViewsOutputChoice.logits]],
            precision.value,
            choose_execution(device, threads),
            wait=if_leased is IfLeased.wait,
            should_stop=stopping,
        )
    if output:
        write_json(output, {"files": [card.model_dump(mode="json") for card in cards]})
