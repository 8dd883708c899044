"""What a run leaves in its folder: its files and its record, or a note of why it failed."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from skd.common.errors import error_text
from skd.models.accounting import count_parameters, memory_bytes
from skd.store.collapse import detect_collapse
from skd.store.leftovers import leftover_files, remove_files
from skd.store.records import Accuracy, Cost, EpochMetrics, Failure, Record, TeacherCard
from skd.store.store import StoreEntry
from skd.training.environment import environment, peak_memory
from skd.training.inference_cost import inference_cost
from skd.training.loop import Training
from skd.training.sessions import code_of_sessions
from skd.training.weights import save_tensors, save_weights


def write_result(
    training: Training,
    entry: StoreEntry,
    execution: dict[str, Any],
    code: dict[str, str],
    teacher: TeacherCard | None,
    logits: Tensor,
    gpu_utilisation: float | None,
) -> Record:
    """Write the weights, test logits and other tensors of a finished run, then its record.

    Args:
        training: the run at its end.
        entry: its folder.
        execution: how it was executed, for the record.
        code: digests of the source files that trained it, by path.
        teacher: card of its teacher, if it has one.
        logits: of the test images, (M, C).
        gpu_utilisation: in percent, if it was sampled.
    """
    files = save_weights(entry, training.student, logits)
    if tensors := training.objective.tensors_to_store():
        files |= save_tensors(entry.objective_path, tensors)
    epochs = tuple(EpochMetrics(**metrics) for metrics in training.history)
    best = max(epochs, key=lambda metrics: metrics.test_top1)  # the first of equal epochs
    sessions = execution["sessions"]
    record = Record(
        id=entry.id,
        spec=training.spec,
        environment={**environment(), "sources": code_of_sessions(sessions)},
        execution=execution,
        num_classes=logits.shape[1],
        epochs=epochs,
        last=_accuracy(epochs[-1]),
        best=_accuracy(best),
        cost=_cost(training, epochs, logits.device, len(sessions), gpu_utilisation),
        teacher=teacher,
        collapse=detect_collapse(epochs, logits.shape[1]),
        files=files,
        code=code,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    entry.write(record)
    remove_files(leftover_files(entry))
    return record


def _cost(
    training: Training,
    epochs: tuple[EpochMetrics, ...],
    device: torch.device,
    sessions: int,
    gpu_utilisation: float | None,
) -> Cost:
    seconds = sum(metrics.seconds for metrics in epochs)
    inference, extra = inference_cost(training), count_parameters(training.objective)
    images_per_epoch = training.training_step.inputs.images_per_epoch
    return Cost(
        train_seconds=seconds,
        seconds_per_epoch=seconds / len(epochs),
        images_per_second=images_per_epoch
        * len(epochs)
        / sum(images_per_epoch / metrics.images_per_second for metrics in epochs),
        peak_memory_bytes=peak_memory(device),
        gpu_utilisation=gpu_utilisation,
        parameters=inference.parameters,
        extra_parameters=extra - inference.kept_parameters,
        extra_memory_bytes=memory_bytes(training.objective),
        multiply_adds=inference.multiply_adds,
        sessions=sessions,
    )


def _accuracy(metrics: EpochMetrics) -> Accuracy:
    return Accuracy(epoch=metrics.epoch, top1=metrics.test_top1, top5=metrics.test_top5)


def write_failure(entry: StoreEntry, error: Exception, epochs_done: int) -> None:
    """Write a note of why a run failed."""
    note = Failure(
        id=entry.id,
        reason=error_text(error),
        kind=type(error).__name__,
        repeats=getattr(error, "repeats", False),
        details="".join(traceback.format_exception(error)),
        epoch=epochs_done,
        failed_at=datetime.now(UTC).isoformat(),
        environment=environment(),
    )
    try:
        entry.write(note)
    except OSError as write_error:  # the log then has it at least
        print(f"the failure note could not be written: {write_error}", flush=True)
