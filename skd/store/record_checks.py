"""Consistency checks of records, cards, failure notes and progress notes. Imports no torch.

All readers of the store use these checks, so they all report the same problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from skd.common.errors import SkdError
from skd.store.records import Accuracy, EpochMetrics, Failure, ProgressNote, Record, TeacherCard
from skd.study.spec import RunSpec

TEXT_FIELDS = ("skd", "git_commit", "sources", "python", "torch", "torchvision", "numpy",
               "platform", "cpu", "gpu", "gpu_driver", "cuda")  # fmt: skip
MAX_INTEGER = 2**63  # limit of a column of 64-bit integers
MAX_AMOUNT = 1e15  # seconds, images a second
MAX_LOSS = 3.5e38  # of a float32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"\w[\w.-]*\.safetensors")


class IdentityError(SkdError, ValueError):
    """A spec does not have the expected identity. The message says what to do."""


def check_identity(spec: RunSpec, identity: str, label: str) -> None:
    """Check that a spec has the identity under which it is trained.

    Raises:
        IdentityError: the spec has another identity; the message starts with ``label``.
    """
    if (actual := spec.identity) != identity:
        raise IdentityError(
            f"{label}: its spec has the identity {actual}, not {identity}: the study's specs.json "
            "was edited; write it again: skd expand STUDY"
        )


def record_problem(record: Record, identity: str) -> str | None:
    """Return the first inconsistency of a record; ``None`` if it is consistent.

    Args:
        record: the record.
        identity: the name of its folder.
    """
    return next(_record_problems(record, identity), None)


def card_problem(card: TeacherCard, identity: str, record: Record | None) -> str | None:
    """Return the first inconsistency of a teacher's card; ``None`` if it is consistent.

    Args:
        card: the card.
        identity: the name of its folder.
        record: the record in this folder; None for an imported teacher, which has none.
    """
    return next(_card_problems(card, identity, record), None)


def failure_problem(note: Failure) -> str | None:
    """Return the first inconsistency of a failure note; ``None`` if it is consistent."""
    return next(_failure_problems(note), None)


def progress_problem(progress: ProgressNote) -> str | None:
    """Return the first inconsistency of a progress note; ``None`` if it is consistent."""
    return next(_progress_problems(progress), None)


def _record_problems(record: Record, identity: str) -> Iterator[str]:
    if record.id != identity:
        yield _wrong_id(record.id)
    if (actual := record.spec.identity) != identity:
        yield (
            f"by this code, the identity of its spec is {actual}: the record was edited, or a "
            "release of skd that resolves studies differently wrote it"
        )
    epochs, expected = record.epochs, record.spec.recipe.epochs
    if [row.epoch for row in epochs] != [*range(1, expected + 1)]:
        yield f"its epochs are not 1 to {expected}, as in its recipe"
        return
    for row in epochs:
        yield from (f"epoch {row.epoch}: {problem}" for problem in _epoch_problems(row))
    best = max(epochs, key=lambda row: row.test_top1)  # the first one, if several are equal
    for name, accuracy, row in (("last", record.last, epochs[-1]), ("best", record.best, best)):
        if accuracy != Accuracy(epoch=row.epoch, top1=row.test_top1, top5=row.test_top5):
            yield f"{name} differs from its {name} epoch, {row.epoch}"
    if not 1 <= record.num_classes < MAX_INTEGER:
        yield f"num_classes {_shorten(record.num_classes)} is not a number of classes"
    yield from _cost_problems(record)
    yield from _environment_problems(record.environment)
    if not isinstance(record.execution.get("device"), str):
        yield "execution.device is not text"
    if (collapse := record.collapse) and not 1 <= (collapse.first_epoch or 1) <= expected:
        yield f"collapse.first_epoch {_shorten(collapse.first_epoch)} is not one of its epochs"
    for name, sha256 in record.files.items():
        if not _FILE.fullmatch(name):
            yield f"it names a file '{name}'; allowed: NAME.safetensors"
        if not _SHA256.fullmatch(sha256):
            yield f"the digest of {name} is not a SHA-256"
    if record.teacher is not None:
        teacher = record.spec.teacher.identity if record.spec.teacher else None
        problems = _card_problems(record.teacher, teacher, None)
        yield from (f"teacher: {problem}" for problem in problems)
    yield from _date_problem("finished_at", record.finished_at)


def _epoch_problems(row: EpochMetrics) -> Iterator[str]:
    for name in ("train_top1", "test_top1", "test_top5"):
        yield from _percentage_problem(name, getattr(row, name))
    for name in ("seconds", "images_per_second"):
        yield from _amount_problem(name, getattr(row, name))
    losses = {"learning_rate": row.learning_rate, "test_loss": row.test_loss}
    for name, value in {**losses, **row.train_losses, **row.diagnostics}.items():
        if abs(value) > MAX_LOSS:
            yield f"{name} {value:g} is larger than float32 allows"


def _cost_problems(record: Record) -> Iterator[str]:
    cost = record.cost
    for name, value in cost:
        if isinstance(value, int) and not 0 <= value < MAX_INTEGER:
            yield f"cost.{name} {_shorten(value)} is not possible"
    for name in ("train_seconds", "seconds_per_epoch", "images_per_second"):
        yield from _amount_problem(f"cost.{name}", getattr(cost, name))
    if cost.gpu_utilisation is not None:
        yield from _percentage_problem("cost.gpu_utilisation", cost.gpu_utilisation)
    sessions = record.execution.get("sessions")
    if sessions is not None and (not isinstance(sessions, list) or len(sessions) != cost.sessions):
        yield f"cost.sessions is {cost.sessions}, but execution.sessions lists another number"


def _environment_problems(environment: dict[str, Any]) -> Iterator[str]:
    for name in TEXT_FIELDS:
        if not isinstance(environment.get(name), str | None):
            yield f"environment.{name} is not text"
    if not isinstance(environment.get("git_clean"), bool | None):
        yield "environment.git_clean is neither true nor false"


def _card_problems(card: TeacherCard, identity: str | None, record: Record | None) -> Iterator[str]:
    if card.id != identity:
        yield _wrong_id(card.id)
    for name in ("test_top1", "test_top5"):
        yield from _percentage_problem(name, getattr(card, name))
    for name in ("sha256", "source_sha256"):
        if (value := getattr(card, name)) is not None and not _SHA256.fullmatch(value):
            yield f"{name} is not a SHA-256"
    if not 0 <= card.parameters < MAX_INTEGER:
        yield f"parameters {_shorten(card.parameters)} is not a number of parameters"
    if record is not None and card.kind == "trained":
        expected = {
            "network": record.spec.network,
            "test_top1": record.last.top1,
            "test_top5": record.last.top5,
            "sha256": record.files.get("weights.safetensors"),
            "partner": record.spec.partner,
        }
        for name, value in expected.items():
            if getattr(card, name) != value:
                yield f"its {name} differs from the record in the same folder"


def _failure_problems(note: Failure) -> Iterator[str]:
    if not 0 <= note.epoch < MAX_INTEGER:
        yield f"epoch {_shorten(note.epoch)} is not a number of epochs"
    yield from _date_problem("failed_at", note.failed_at)


def _progress_problems(progress: ProgressNote) -> Iterator[str]:
    for name, value in progress:
        if not 0 <= value <= MAX_AMOUNT:
            yield f"{name} is not possible"


def _wrong_id(identity: str) -> str:
    return f"its identity is {identity}: the folder was renamed, or the file was edited"


def _shorten(number: int | None) -> str:
    """Return a whole number as text, shortened: in an edited file it may have many digits."""
    text = str(number)
    return text if len(text) <= 20 else f"{text[:20]}…"


def _percentage_problem(name: str, value: float) -> Iterator[str]:
    if not 0 <= value <= 100:
        yield f"{name} {value:g} is not a percentage"


def _amount_problem(name: str, value: float) -> Iterator[str]:
    if not 0 < value <= MAX_AMOUNT:
        yield f"{name} {value:g} is not possible"


def _date_problem(name: str, text: str) -> Iterator[str]:
    try:
        is_valid = datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        is_valid = False
    if not is_valid:
        yield f"{name} '{text:.50}' is not a date with a time zone"
