"""The command `skd teacher-views`. Torch is imported when it runs."""

from __future__ import annotations

from skd.cli.options import (
    DEFAULT_RESULTS,
    DeviceOption,
    IfLeasedOption,
    OutputOption,
    ResultsOption,
    StudyArgument,
    TeacherArgument,
    ThreadsOption,
    ViewsOutputsOption,
    ViewsPrecisionOption,
)
from skd.common.files import write_json
from skd.common.stopping import handle_stop_signals
from skd.planning.views_choice import check_useful_views
from skd.store.store import Store
from skd.study.expansion_files import load_expansion
from skd.study.sheet import StudyError


def teacher_views(
    study: StudyArgument,
    name: TeacherArgument,
    outputs: ViewsOutputsOption = None,
    precision: ViewsPrecisionOption = "float16",
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    if_leased: IfLeasedOption = "refuse",
    output: OutputOption = None,
) -> None:
    """Store a teacher's outputs on every view of every training image, for runs to look up."""
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.training.execution import choose_execution
    from skd.training.store_teacher_views import store_teacher_views

    expansion = load_expansion(study, results)
    check_useful_views(expansion, name)
    teacher = Store(results).teacher(expansion.teacher(name).id)
    if teacher.card() is None:  # checked before a folder is created for the files
        raise StudyError(
            f"the teacher {teacher.id} is not in the store; first: skd teacher {study} {name}"
        )
    with handle_stop_signals() as should_stop:
        cards = store_teacher_views(
            expansion,
            name,
            Store(results),
            [choice.value for choice in outputs or ()] or ["logits"],
            precision,
            choose_execution(device, threads),
            wait=if_leased == "wait",
            should_stop=should_stop,
        )
    if output:
        write_json(output, {"files": [card.model_dump(mode="json") for card in cards]})
