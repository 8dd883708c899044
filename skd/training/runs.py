"""One run from wherever it stands to its record: lease, resume, checkpoints, failure note."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from skd.collapse import judge
from skd.data import load as load_images
from skd.errors import InterruptedRunError, RunFailedError
from skd.files import sha256_of, write_atomically
from skd.lease import Holder, LeaseLostError, lease
from skd.models.accounting import count_parameters, memory_bytes, multiply_adds
from skd.records import Accuracy, Cost, Epoch, Failure, Record, TeacherCard
from skd.spec import RunSpec
from skd.store import Entry
from skd.training import checkpoint
from skd.training.execution import (
    Execution,
    environment,
    freeze,
    peak_memory,
    reset_peak_memory,
)
from skd.training.loop import Training
from skd.training.progress import RunProgress, run_progress, wants_loss
from skd.training.telling import Telling


@dataclass(frozen=True)
class Options:
    """How to go about a run; nothing here changes its numbers but the execution's rounding.

    Attributes:
        execution: for a run that is begun now; one that goes on keeps its own.
        checkpoint_seconds: at most so long between checkpoints, at epoch ends; 0: every epoch.
        sharing: trainings that share the device, of which this is one.
        wait: wait for another process that trains the same run, instead of refusing.
        stopping: asked after each step; true: save and leave.
    """

    execution: Execution
    checkpoint_seconds: float = 60.0
    sharing: int = 1
    wait: bool = False
    stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class LoadedTeacher:
    """A frozen teacher in evaluation mode, and its card."""

    network: nn.Module
    card: TeacherCard


def complete(
    spec: RunSpec,
    entry: Entry,
    options: Options,
    label: str,
    load_teacher: Callable[[torch.device, int], LoadedTeacher] | None = None,
) -> Record:
    """Return a run's record, training what is left of it.

    Args:
        spec: the run.
        entry: its folder in the store.
        options: how to go about it.
        label: how messages name it.
        load_teacher: returns the teacher on a device, given the number of classes; none for a run
            without one.

    Raises:
        RunFailedError: it failed, now; a failure note has been left.
        InterruptedRunError: it was asked to stop, and has saved.
        LeaseHeldError: another process trains it, and it shall not be waited for.
        ExecutionError: it cannot be executed here.
    """
    if (record := entry.record()) is not None:
        return record

    def on_wait(holder: Holder) -> None:
        print(f"{label}: waiting for {holder}, which trains this run", flush=True)

    with lease(
        entry.folder, wait=options.wait, on_wait=on_wait, stopping=options.stopping
    ) as still_mine:
        if (record := entry.record()) is not None:  # finished while we waited
            return record
        entry.write_spec(spec)
        execution = freeze(entry.folder, options.execution)
        device = execution.apply()
        reset_peak_memory(device)
        training = None
        try:
            images = load_images(spec.dataset)
            teacher = load_teacher(device, images.num_classes) if load_teacher else None
            training = Training(spec, images, teacher.network if teacher else None, device)
            sessions = _resume(training, entry, device)
            telling = Telling(
                entry, spec.recipe.epochs, training.steps_per_epoch, device.type == "cuda"
            )
            with run_progress(
                label, spec.recipe.epochs, spec.recipe.epochs * training.steps_per_epoch
            ) as progress:
                if training.epochs_done or training.step:
                    progress.note(f"goes on after epoch {training.epochs_done}")
                _train(training, entry, options, sessions, still_mine, progress, telling)
            busy = telling.gpu_utilisation
            how = {**execution.model_dump(), "sessions": sessions, "sharing": options.sharing}
            return _finish(training, entry, how, teacher, still_mine, busy)
        except (InterruptedRunError, LeaseLostError):
            raise
        except Exception as error:
            still_mine()
            _leave_failure_note(entry, error, training.epochs_done if training else 0)
            raise RunFailedError(f"{label}: {error}") from error


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
        if wants_loss(shown):
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
    teacher: LoadedTeacher | None,
    still_mine: Callable[[], None],
    gpu_utilisation: float | None,
) -> Record:
    """Leave weights, test logits and what the objective keeps, then the record."""
    logits = training.test_logits()
    still_mine()
    files = leave_weights(entry, training.student, logits)
    if kept := training.objective.kept():
        files |= _leave(entry.kept_path, kept)
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
        teacher=teacher.card if teacher else None,
        collapse=judge(epochs, logits.shape[1]),
        files=files,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    entry.write(record)
    checkpoint.remove(entry.folder)
    return record


def leave_weights(entry: Entry, network: nn.Module, logits: Tensor) -> dict[str, str]:
    """Store a network's weights and its test-set logits (M, C); return the files' SHA-256."""
    weights = _leave(entry.weights_path, network.state_dict())
    return weights | _leave(entry.logits_path, {"logits": logits.cpu().half()})


def _leave(path: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Store tensors; return the file's SHA-256 by its name."""
    write_atomically(path, save({name: value.cpu() for name, value in tensors.items()}))
    return {path.name: sha256_of(path)}


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
