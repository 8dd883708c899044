"""Reading entries of any store, with problems as text instead of errors. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from skd.common.files import read_json
from skd.store.records import Failure, Record, TeacherCard
from skd.store.store import StoreEntry, StoreError
from skd.study.spec import RunSpec

Model = TypeVar("Model", bound=BaseModel)


def read_record(entry: StoreEntry) -> tuple[Record | None, str]:
    """Return an entry's record or ``None``, and why it cannot be read or an empty text."""
    return _read(entry.record, entry.record_path)


def read_card(entry: StoreEntry) -> tuple[TeacherCard | None, str]:
    """Return a teacher's card or ``None``, and why it cannot be read or an empty text."""
    return _read(entry.card, entry.card_path)


def read_failure(entry: StoreEntry) -> tuple[Failure | None, str]:
    """Return an entry's failure note or ``None``, and why it cannot be read or an empty text."""
    return _read(entry.failure, entry.failure_path)


def read_spec(entry: StoreEntry) -> RunSpec | None:
    """Return the spec in a run's folder; ``None`` if it is missing or cannot be read."""
    try:
        return RunSpec.restore(read_json(entry.folder / "spec.json"))
    except (OSError, ValueError):
        return None


def display_path(path: Path) -> str:
    """Return a path for messages: relative within the working directory, otherwise absolute."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read(read: Callable[[], Model | None], path: Path) -> tuple[Model | None, str]:
    try:
        return read(), ""
    except StoreError as error:
        return None, f"{display_path(path)} {error.why}"
