"""One run from wherever it stands to its record: lease, resume, checkpoints, failure note."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from skd.collapse import judge
from skd.errors import DeviceFailedError, InterruptedRunError, RunFailedError
from skd.lease import Holder, LeaseLostError, lease
from skd.models.accounting import count_parameters, memory_bytes, multiply_adds
from skd.records import Accuracy, Cost, Epoch, Failure, Record, TeacherCard
from skd.spec import RunSpec
from skd.store import Entry
from skd.teacher_views import TeacherOutputs
from skd.training import checkpoint
from skd.training.execution import (
    Execution,
    device_failed,
    environment,
    freeze,
    peak_memory,
    reset_peak_memory,
)
from skd.training.loop import Training
from skd.training.materials import Materials, choose_teacher
from skd.training.progress import RunProgress, run_progress, wants_loss
from skd.training.telling import Telling
from skd.training.weights import leave, leave_weights


@dataclass(frozen=True)
class Options:
    """How to go about a run; nothing here changes its numbers but the execution's rounding.

    Attributes:
        execution: for a run that is begun now; one that goes on keeps its own.
        teacher: where its teacher's outputs come from, likewise; none: stored views, where there
            are some.
        checkpoint_seconds: at most so long between checkpoints, at epoch ends; 0: every epoch.
        sharing: trainings that share the device, of which this is one.
        wait: wait for another process that trains the same run, instead of refusing.
        stopping: asked after each step; true: save and leave.
    """

    execution: Execution
    teacher: TeacherOutputs | None = None
    checkpoint_seconds: float = 60.0
    sharing: int = 1
    wait: bool = False
    stopping: Callable[[], bool] = lambda: False


def complete(
    spec: RunSpec,
    entry: Entry,
    options: Options,
    label: str,
    teacher: Entry | None = None,
    materials: Materials | None = None,
) -> Record:
    """Return a run's record, training what is left of it.

    Args:
        spec: the run.
        entry: its folder in the store.
        options: how to go about it.
        label: how messages name it.
        teacher: its teacher's folder; none for a run without one.
        materials: what the process's runs share; none: nothing.

    Raises:
        RunFailedError: it failed, now; a failure note has been left.
        DeviceFailedError: its device did: no run of this process can go on.
        InterruptedRunError: it was asked to stop, and has saved.
        LeaseHeldError: another process trains it, and it shall not be waited for.
        ExecutionError: it cannot be executed here.
    """
    if (record := entry.record()) is not None:
        return record

    def on_wait(holder: Holder) -> None:
        print(f"{label}: waiting for {holder}, which trains this run", flush=True)

    def execution_asked_for() -> Execution:
        device = torch.device(options.execution.device)
        how = choose_teacher(options.teacher, spec, teacher, device) if teacher else None
        return options.execution.model_copy(update={"teacher": how})

    with lease(
        entry.folder, wait=options.wait, on_wait=on_wait, stopping=options.stopping
    ) as still_mine:
        if (record := entry.record()) is not None:  # finished while we waited
            return record
        entry.write_spec(spec)
        execution = freeze(entry.folder, execution_asked_for)
        device = execution.apply()
        if options.sharing == 1:
            reset_peak_memory(device)
        training = None
        try:
            materials = materials or Materials()
            material = materials.data(spec.dataset, device)
            at_hand = materials.teacher(spec, teacher, execution, device) if teacher else None
            training = Training(spec, material, at_hand and at_hand.outputs, execution)
            sessions = _resume(training, entry, device)
            telling = Telling(
                entry, spec.recipe.epochs, training.steps_per_epoch, device.type == "cuda"
            )
            steps = spec.recipe.epochs * training.steps_per_epoch
            alone = options.sharing == 1
            with run_progress(label, spec.recipe.epochs, steps, alone) as progress:
                if training.epochs_done or training.step:
                    progress.note(f"goes on after epoch {training.epochs_done}")
                _train(training, entry, options, sessions, still_mine, progress, telling)
            how = {
                **execution.model_dump(),
                "recording": training.recording,
                "sessions": sessions,
                "sharing": options.sharing,
            }
            card = at_hand and at_hand.card
            return _finish(training, entry, how, card, still_mine, telling.gpu_utilisation)
        except (InterruptedRunError, LeaseLostError):
            raise
        except Exception as error:
            still_mine()
            _leave_failure_note(entry, error, training.epochs_done if training else 0)
            failed = DeviceFailedError if device_failed(error) else RunFailedError
            raise failed(f"{label}: {error}") from error


def _resume(training: Training, entry: Entry, device: torch.device) -> list[str]:
    """Load the newest checkpoint, if any; return a description of each session, this one last."""
    here = environment()
    session = f"torch {here['torch']}, {here['gpu'] or here['cpu']}"
    state = checkpoint.load(entry.folder, device)
    if state is None:
        return [session]
    training.load_state(state["training"])
    return [*state["sessions"], session]


def _train(
    training: Training,
    entry: Entry,
    options: Options,
    sessions: list[str],
    still_mine: Callable[[], None],
    progress: RunProgress,
    telling: Telling,
) -> None:
    saved = shown = time.monotonic()
    on_cpu = training.device.type == "cpu"

    def save_checkpoint() -> None:
        nonlocal saved
        still_mine()
        checkpoint.save(entry.folder, {"training": training.state(), "sessions": sessions})
        entry.failure_path.unlink(missing_ok=True)  # an earlier attempt's; this one is under way
        saved = time.monotonic()

    def after_step(training: Training) -> None:
        nonlocal shown
        if options.stopping():
            save_checkpoint()
            raise InterruptedRunError(
                f"stopped after epoch {training.epochs_done}, step {training.step}; saved"
            )
        done = training.epochs_done * training.steps_per_epoch + training.step
        loss = None
        if on_cpu and wants_loss(shown):  # elsewhere it would wait for the device
            shown = time.monotonic()
            loss = (training.sums["loss/total"] / training.sums["images"]).item()
        speed = training.step * training.spec.recipe.batch_size / training.elapsed
        progress.step(done, loss, speed)
        telling.step(done, speed)

    while training.epochs_done < training.spec.recipe.epochs:
        row = training.run_epoch(after_step)
        progress.epoch(row)
        # Before the next epoch's end would be too late.
        due = time.monotonic() - saved + row.seconds > options.checkpoint_seconds
        if due or not options.checkpoint_seconds:
            save_checkpoint()


def _finish(
    training: Training,
    entry: Entry,
    how: dict[str, Any],
    teacher: TeacherCard | None,
    still_mine: Callable[[], None],
    gpu_utilisation: float | None,
) -> Record:
    """Leave weights, test logits and what the objective keeps, then the record."""
    logits = training.test_logits()
    still_mine()
    files = leave_weights(entry, training.student, logits)
    if kept := training.objective.kept():
        files |= leave(entry.kept_path, kept)
    epochs = tuple(Epoch(**row) for row in training.history)
    best = max(epochs, key=lambda row: row.test_top1)  # the first of equals
    seconds = sum(row.seconds for row in epochs)
    images = len(training.views.labels) * len(epochs)
    record = Record(
        id=entry.id,
        spec=training.spec,
        environment=environment(),
        execution=how,
        num_classes=logits.shape[1],
        epochs=epochs,
        last=_accuracy(epochs[-1]),
        best=_accuracy(best),
        cost=Cost(
            train_seconds=seconds,
            seconds_per_epoch=seconds / len(epochs),
            images_per_second=images
            / sum(len(training.views.labels) / row.images_per_second for row in epochs),
            peak_memory_bytes=peak_memory(logits.device),
            gpu_utilisation=gpu_utilisation,
            parameters=count_parameters(training.student),
            extra_parameters=count_parameters(training.objective),
            extra_memory_bytes=memory_bytes(training.objective),
            multiply_adds=multiply_adds(training.student, (3, *[training.views.size] * 2)),
            sessions=len(how["sessions"]),
        ),
        teacher=teacher,
        collapse=judge(epochs, logits.shape[1]),
        files=files,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    entry.write(record)
    checkpoint.remove(entry.folder)
    return record


def _accuracy(row: Epoch) -> Accuracy:
    return Accuracy(epoch=row.epoch, top1=row.test_top1, top5=row.test_top5)


def _leave_failure_note(entry: Entry, error: Exception, epochs_done: int) -> None:
    note = Failure(
        id=entry.id,
        reason=str(error) or type(error).__name__,
        kind=type(error).__name__,
        repeats=getattr(error, "repeats", False),
        details="".join(traceback.format_exception(error)),
        epoch=epochs_done,
        failed_at=datetime.now(UTC).isoformat(),
        environment=environment(),
    )
    try:
        entry.write(note)
    except OSError as full:  # say it at least where the log is
        print(f"the failure note could not be written: {full}", flush=True)
