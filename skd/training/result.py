"""What a run leaves in its folder: files and record, or a note of why it failed."""

from __future__ import annotations

import re
import traceback
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from skd.common.errors import error_text
from skd.models.accounting import count_parameters, memory_bytes, multiply_adds
from skd.store.collapse import detect_collapse
from skd.store.leftovers import leftover_files, remove_files
from skd.store.records import Accuracy, Cost, EpochMetrics, Failure, Record, TeacherCard
from skd.store.store import StoreEntry
from skd.training.execution import environment, peak_memory
from skd.training.loop import Training
from skd.training.weights import save_tensors, save_weights

CODE_IN_SESSION = re.compile(r", code ([0-9a-f]+)")  # in what is said of a session


def write_result(
    training: Training,
    entry: StoreEntry,
    execution: dict[str, Any],
    code: dict[str, str],
    teacher: TeacherCard | None,
    logits: Tensor,
    gpu_utilisation: float | None,
) -> Record:
    """Leave a finished run's weights, test logits and what its objective keeps, then its record.

    Args:
        training: at its end.
        entry: the run's folder.
        execution: it was executed, for the record.
        code: digests of the source files that trained it, by path.
        teacher: its teacher's card, if any.
        logits: of the test images, (M, C).
        gpu_utilisation: in percent, if sampled.
    """
    files = save_weights(entry, training.student, logits)
    if kept := training.objective.tensors_to_store():
        files |= save_tensors(entry.objective_path, kept)
    epochs = tuple(EpochMetrics(**row) for row in training.history)
    best = max(epochs, key=lambda row: row.test_top1)  # the first of equals
    seconds = sum(row.seconds for row in epochs)
    images = training.images_per_epoch * len(epochs)
    record = Record(
        id=entry.id,
        spec=training.spec,
        environment={**environment(), "sources": _sources(execution["sessions"])},
        execution=execution,
        num_classes=logits.shape[1],
        epochs=epochs,
        last=_accuracy(epochs[-1]),
        best=_accuracy(best),
        cost=Cost(
            train_seconds=seconds,
            seconds_per_epoch=seconds / len(epochs),
            images_per_second=images
            / sum(training.images_per_epoch / row.images_per_second for row in epochs),
            peak_memory_bytes=peak_memory(logits.device),
            gpu_utilisation=gpu_utilisation,
            parameters=count_parameters(training.student),
            extra_parameters=count_parameters(training.objective),
            extra_memory_bytes=memory_bytes(training.objective),
            multiply_adds=multiply_adds(training.student, (3, *[training.views.size] * 2)),
            sessions=len(execution["sessions"]),
        ),
        teacher=teacher,
        collapse=detect_collapse(epochs, logits.shape[1]),
        files=files,
        code=code,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    entry.write(record)
    remove_files(leftover_files(entry))
    return record


def _sources(sessions: list[str]) -> str:
    """Return the digest of the code that trained; of a run resumed under other code, all of them.

    A session from before digests were recorded is "unknown".
    """
    found = [CODE_IN_SESSION.search(session) for session in sessions]
    return "+".join(dict.fromkeys(match[1] if match else "unknown" for match in found))


def _accuracy(row: EpochMetrics) -> Accuracy:
    return Accuracy(epoch=row.epoch, top1=row.test_top1, top5=row.test_top5)


def write_failure(entry: StoreEntry, error: Exception, epochs_done: int) -> None:
    """Leave a note of why a run failed."""
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
    except OSError as full:  # say it at least where the log is
        print(f"the failure note could not be written: {full}", flush=True)
