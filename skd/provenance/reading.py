"""Reading entries of any store, sound or not: a problem is a line to tell. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from skd.records import SCHEMA_VERSION, Failure, Record, TeacherCard
from skd.sheet import explain
from skd.spec import RunSpec
from skd.store import Entry, StoreError

Model = TypeVar("Model", bound=BaseModel)
MOST_PROBLEMS = 3


def read_record(entry: Entry) -> tuple[Record | None, str]:
    """Return an entry's record or none, and why it cannot be read, where that is so."""
    return _read(entry.record, entry.record_path)


def read_card(entry: Entry) -> tuple[TeacherCard | None, str]:
    """Return a teacher's card or none, and why it cannot be read, where that is so."""
    return _read(entry.card, entry.card_path)


def read_failure(entry: Entry) -> tuple[Failure | None, str]:
    """Return an entry's failure note or none, and why it cannot be read, where that is so."""
    return _read(entry.failure, entry.failure_path)


def read_spec(entry: Entry) -> RunSpec | None:
    """Return the spec that an unfinished run has left for people, or none that can be read."""
    try:
        return RunSpec.restore(json.loads((entry.folder / "spec.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def near(path: Path) -> str:
    """Return a path as a person types it: relative within the working directory, else absolute."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read(read: Callable[[], Model | None], path: Path) -> tuple[Model | None, str]:
    try:
        if path.exists() and not path.is_file():  # to read a pipe would never end
            return None, f"{near(path)} is no regular file"
        return read(), ""
    except StoreError as error:
        return None, _explained(near(path), error.__cause__)
    except OSError as error:
        return None, f"{near(path)} cannot be read: {error.strerror}"


def _explained(path: str, error: BaseException | None) -> str:
    if not isinstance(error, ValidationError):
        return f"{path} is damaged: {error}"
    for item in error.errors():
        if item["loc"] == ("schema_version",):
            return (
                f"{path} has schema version {item['input']!r}, and this code reads "
                f"{SCHEMA_VERSION}: it is of another release of skd"
            )
    first, *others = explain(path, error).splitlines()
    shown = [first, *(line.removeprefix(f"{path}: ") for line in others[: MOST_PROBLEMS - 1])]
    more = len(others) + 1 - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
