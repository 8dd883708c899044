"""Whether what is stored of a finished run or a teacher holds together. Imports no torch.

Pure functions of records and cards, and the only ones: whoever reads the store is told the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from skd.common.errors import SkdError
from skd.store.records import Accuracy, EpochMetrics, Failure, ProgressNote, Record, TeacherCard
from skd.study.spec import RunSpec

TEXT_FIELDS = ("skd", "git_commit", "sources", "python", "torch", "torchvision", "numpy", "platform",
         "cpu", "gpu", "gpu_driver", "cuda")  # fmt: skip
MAX_INTEGER = 2**63  # what a table's column can hold
MAX_AMOUNT = 1e15  # seconds, images a second
MAX_LOSS = 3.5e38  # of a float32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"\w[\w.-]*\.safetensors")


class IdentityError(SkdError, ValueError):
    """A spec is not the one that an identity stands for. Says what to do."""


def check_identity(spec: RunSpec, identity: str, what: str) -> None:
    """Refuse to train a spec under the identity of another.

    Raises:
        IdentityError: the spec has another identity; names ``what``.
    """
    if (own := spec.identity) != identity:
        raise IdentityError(
            f"{what}: its spec has the identity {own}, not {identity}: the study's specs.json was "
            "edited; make it anew: skd expand STUDY"
        )


def record_problem(record: Record, identity: str) -> str | None:
    """Return what in a record cannot be, or none where it is sound.

    Args:
        record: as it was read.
        identity: the name of its folder.
    """
    return next(_of_record(record, identity), None)


def card_problem(card: TeacherCard, identity: str, record: Record | None) -> str | None:
    """Return what in a teacher's card cannot be, or none where it is sound.

    Args:
        card: as it was read.
        identity: the name of its folder.
        record: of the training beside it; none where there is none, as of an imported teacher.
    """
    return next(_of_card(card, identity, record), None)


def failure_problem(note: Failure) -> str | None:
    """Return what in a failure note cannot be, or none where it is sound."""
    return next(_of_failure(note), None)


def progress_problem(progress: ProgressNote) -> str | None:
    """Return what in what a run tells of its progress cannot be, or none where it is sound."""
    return next(_of_progress(progress), None)


def _of_record(record: Record, identity: str) -> Iterator[str]:
    if record.id != identity:
        yield _other_id(record.id)
    if (found := record.spec.identity) != identity:
        yield (
            f"by this code, the identity of its spec is {found}: the record was edited, or is of a "
            "release of skd that resolves studies in another way"
        )
    epochs, expected = record.epochs, record.spec.recipe.epochs
    if [row.epoch for row in epochs] != [*range(1, expected + 1)]:
        yield f"its epochs are not 1 to {expected}, as its recipe says"
        return
    for row in epochs:
        yield from (f"epoch {row.epoch}: {wrong}" for wrong in _of_epoch(row))
    best = max(epochs, key=lambda row: row.test_top1)  # the first of equals
    for name, stated, row in (("last", record.last, epochs[-1]), ("best", record.best, best)):
        if stated != Accuracy(epoch=row.epoch, top1=row.test_top1, top5=row.test_top5):
            yield f"{name} is not what its {name} epoch, {row.epoch}, has"
    if not 1 <= record.num_classes < MAX_INTEGER:
        yield f"num_classes {_short(record.num_classes)} is no number of classes"
    yield from _of_cost(record)
    yield from _of_environment(record.environment)
    if not isinstance(record.execution.get("device"), str):
        yield "execution.device is no text"
    if (gone := record.collapse) and not 1 <= (gone.first_epoch or 1) <= expected:
        yield f"collapse.first_epoch {_short(gone.first_epoch)} is none of its epochs"
    for name, sha256 in record.files.items():
        if not _FILE.fullmatch(name):
            yield f"it names a file '{name}'; allowed: NAME.safetensors"
        if not _SHA256.fullmatch(sha256):
            yield f"what it says of {name} is no SHA-256"
    if record.teacher is not None:
        taught = record.spec.teacher.identity if record.spec.teacher else None
        yield from (f"teacher: {wrong}" for wrong in _of_card(record.teacher, taught, None))
    yield from _date("finished_at", record.finished_at)


def _of_epoch(row: EpochMetrics) -> Iterator[str]:
    for name in ("train_top1", "test_top1", "test_top5"):
        yield from _percentage(name, getattr(row, name))
    for name in ("seconds", "images_per_second"):
        yield from _amount(name, getattr(row, name))
    losses = {"learning_rate": row.learning_rate, "test_loss": row.test_loss}
    for name, value in {**losses, **row.train_losses, **row.diagnostics}.items():
        if abs(value) > MAX_LOSS:
            yield f"{name} {value:g} is larger than any number of a training"


def _of_cost(record: Record) -> Iterator[str]:
    cost = record.cost
    for name, value in cost:
        if isinstance(value, int) and not 0 <= value < MAX_INTEGER:
            yield f"cost.{name} {_short(value)} is no number that a machine can have"
    for name in ("train_seconds", "seconds_per_epoch", "images_per_second"):
        yield from _amount(f"cost.{name}", getattr(cost, name))
    if cost.gpu_utilisation is not None:
        yield from _percentage("cost.gpu_utilisation", cost.gpu_utilisation)
    sessions = record.execution.get("sessions")
    if sessions is not None and (not isinstance(sessions, list) or len(sessions) != cost.sessions):
        yield f"cost.sessions is {cost.sessions}, and execution.sessions lists others"


def _of_environment(environment: dict[str, Any]) -> Iterator[str]:
    for name in TEXT_FIELDS:
        if not isinstance(environment.get(name), str | None):
            yield f"environment.{name} is no text"
    if not isinstance(environment.get("git_clean"), bool | None):
        yield "environment.git_clean is neither true nor false"


def _of_card(card: TeacherCard, identity: str | None, record: Record | None) -> Iterator[str]:
    if card.id != identity:
        yield _other_id(card.id)
    for name in ("test_top1", "test_top5"):
        yield from _percentage(name, getattr(card, name))
    for name in ("sha256", "source_sha256"):
        if (value := getattr(card, name)) is not None and not _SHA256.fullmatch(value):
            yield f"{name} is no SHA-256"
    if not 0 <= card.parameters < MAX_INTEGER:
        yield f"parameters {_short(card.parameters)} is no number of parameters"
    if record is not None and card.kind == "trained":
        stated = {
            "network": record.spec.network,
            "test_top1": record.last.top1,
            "test_top5": record.last.top5,
            "sha256": record.files.get("weights.safetensors"),
        }
        for name, value in stated.items():
            if getattr(card, name) != value:
                yield f"its {name} is not that of the record beside it"


def _of_failure(note: Failure) -> Iterator[str]:
    if not 0 <= note.epoch < MAX_INTEGER:
        yield f"epoch {_short(note.epoch)} is no number of epochs"
    yield from _date("failed_at", note.failed_at)


def _of_progress(told: ProgressNote) -> Iterator[str]:
    for name, value in told:
        if not 0 <= value <= MAX_AMOUNT:
            yield f"{name} is no number that a training can have"


def _other_id(found: str) -> str:
    return f"it is that of {found}: the folder was renamed, or the file edited"


def _short(number: int | None) -> str:
    """Return a whole number as text, which of an edited one may have thousands of digits."""
    text = str(number)
    return text if len(text) <= 20 else f"{text[:20]}…"


def _percentage(name: str, value: float) -> Iterator[str]:
    if not 0 <= value <= 100:
        yield f"{name} {value:g} is no percentage"


def _amount(name: str, value: float) -> Iterator[str]:
    if not 0 < value <= MAX_AMOUNT:
        yield f"{name} {value:g} is no number that a training can have"


def _date(name: str, text: str) -> Iterator[str]:
    try:
        known = datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        known = False
    if not known:
        yield f"{name} '{text:.50}' is no date with a time zone"
