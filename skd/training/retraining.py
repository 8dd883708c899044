"""Train the first epochs of a finished run again with the current code, and compare bit by bit."""

from __future__ import annotations

from typing import Any

from skd.common.errors import SkdError
from skd.store.record_differences import TIMING_FIELDS
from skd.store.records import EpochMetrics, Record
from skd.store.stale import FinishedRun
from skd.store.store import Store
from skd.training.execution import Execution
from skd.training.loop import Training
from skd.training.progress import run_progress
from skd.training.resources import Resources, TeacherRequest


def retraining_problem(run: FinishedRun, store: Store) -> str | None:
    """Return why the first epochs of a run cannot be trained again; ``None`` if they can."""
    record = run.entry.record()
    if record.execution.get("processes", 1) > 1 or record.execution.get("accumulate", 1) > 1:
        return "it was trained in several processes or parts"
    if any("+" in str(before) for before, _ in (run.changed or {}).values()):
        return "its code changed while it was trained"
    if record.spec.teacher is None:
        return None
    try:
        card = store.teacher(record.spec.teacher.identity).card()
    except SkdError as error:
        return str(error)
    if card is None or not store.teacher(card.id).weights_path.is_file():
        return "its teacher is not in the store"
    if record.teacher is not None and card.sha256 != record.teacher.sha256:
        return "its teacher is another one now"
    return None


def first_differing_epoch(
    run: FinishedRun, store: Store, resources: Resources, epochs: int
) -> int | None:
    """Train the first epochs of a run again; return the first one whose metrics differ.

    Args:
        run: the run. It is executed as its record says.
        store: has its teacher.
        resources: what the trainings of this process share.
        epochs: number of epochs to train, at most those of the run.

    Returns:
        ``None`` if no epoch differs.

    Raises:
        SkdError: the run cannot be trained on this machine.
    """
    record = run.entry.record()
    training = _training(record, store, resources)
    count = min(epochs, len(record.epochs))
    try:
        with run_progress(run.label, count, count * training.steps_per_epoch) as progress:

            def after_step(training: Training) -> None:
                speed = training.step * record.spec.recipe.batch_size / training.elapsed
                progress.step(training.steps_done, None, speed)

            for recorded in record.epochs[:count]:
                if _numbers(training.run_epoch(after_step)) != _numbers(recorded):
                    return recorded.epoch
    finally:
        training.close()
    return None


def _training(record: Record, store: Store, resources: Resources) -> Training:
    """Return the training of a recorded run, before its first step."""
    spec = record.spec
    names = [name for name in Execution.model_fields if name in record.execution]
    execution = Execution.restore({name: record.execution[name] for name in names})
    device = execution.configure_process()
    dataset = resources.dataset(spec.dataset, device)
    teacher = None
    if spec.teacher is not None:
        request = TeacherRequest(spec, store.teacher(spec.teacher.identity))
        teacher = request.load(resources, execution, device).teacher
    return Training(spec, dataset, teacher, execution)


def _numbers(metrics: EpochMetrics) -> dict[str, Any]:
    return metrics.model_dump(exclude=TIMING_FIELDS)
