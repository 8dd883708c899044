"""The first epochs of a finished run, trained again by today's code and compared bit by bit."""

from __future__ import annotations

from skd.common.errors import SkdError
from skd.store.record_differences import TIMING_FIELDS
from skd.store.records import EpochMetrics
from skd.store.stale import FinishedRun
from skd.store.store import Store
from skd.training.execution import Execution
from skd.training.loop import Training
from skd.training.progress import run_progress
from skd.training.resources import Resources


def retraining_problem(run: FinishedRun, store: Store) -> str | None:
    """Return why a run's first epochs cannot be trained again here, or none."""
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
        return "its teacher is not at hand"
    if record.teacher is not None and card.sha256 != record.teacher.sha256:
        return "its teacher is another one now"
    return None


def first_differing_epoch(
    run: FinishedRun, store: Store, resources: Resources, epochs: int
) -> int | None:
    """Return the first of some epochs whose metrics are other ones when it is trained again.

    Args:
        run: with its record; the way it was executed is taken from that.
        store: with its teacher.
        resources: what the trainings of this process share.
        epochs: how many are trained, at most those that the run has.

    Raises:
        SkdError: it cannot be trained here.
    """
    record = run.entry.record()
    spec, how = record.spec, record.execution
    kept = {name: how[name] for name in Execution.model_fields if name in how}
    execution = Execution.restore(kept)
    device = execution.apply()
    material = resources.data(spec.dataset, device)
    teacher = None
    if spec.teacher is not None:
        entry = store.teacher(spec.teacher.identity)
        teacher = resources.teacher(spec, entry, execution, device).outputs
    training = Training(spec, material, teacher, execution)
    count = min(epochs, len(record.epochs))
    try:
        with run_progress(run.label, count, count * training.steps_per_epoch) as progress:

            def after_step(training: Training) -> None:
                done = training.epochs_done * training.steps_per_epoch + training.step
                speed = training.step * spec.recipe.batch_size / training.elapsed
                progress.step(done, None, speed)

            for recorded in record.epochs[:count]:
                if _numbers(training.run_epoch(after_step)) != _numbers(recorded):
                    return recorded.epoch
    finally:
        training.views.close()
    return None


def _numbers(epoch: EpochMetrics) -> dict:
    return epoch.model_dump(exclude=TIMING_FIELDS)
