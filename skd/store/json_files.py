"""Reading the store's JSON files: what is wrong with one is said in a phrase. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from skd.common.errors import SkdError
from skd.common.files import read_json
from skd.store.records import SCHEMA_VERSION
from skd.study.sheet import format_validation_error
from skd.study.spec import RunSpec

Model = TypeVar("Model", bound=BaseModel)
MAX_PROBLEMS, MAX_PROBLEM_LENGTH = 3, 200  # said of one file; characters of each


class StoreError(SkdError):
    """A file of the store cannot be used. Says which, why, and what to do.

    Attributes:
        why: what is wrong, as a phrase that follows the file's name.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


def read_model(
    model: type[Model], path: Path, remedy: str, find_problem: Callable[[Model], str | None]
) -> Model | None:
    """Return what a file of the store holds, or none where there is no file.

    Args:
        model: what the file holds.
        path: the file.
        remedy: what to do about a file that cannot be used, as a sentence.
        find_problem: returns what in the contents is inconsistent, or none.

    Raises:
        StoreError: it cannot be read, or is not sound.
    """
    try:
        data = read_json(path)
        if isinstance(data, dict) and isinstance(data.get("spec"), dict):
            data["spec"] = RunSpec.restore(data["spec"])
        found = model.model_validate(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = unreadable_reason(error)
        raise StoreError(f"{path} {why}. {remedy}", why) from error
    if wrong := find_problem(found):
        why = f"is inconsistent: {wrong}"
        raise StoreError(f"{path} {why}. {remedy}", why)
    return found


def unreadable_reason(error: OSError | ValueError) -> str:
    """Return what `read_json` or a model's validation found, to follow the file's name."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if not isinstance(error, ValidationError):
        return f"is damaged: {error}"
    for item in error.errors():
        if item["loc"] == ("schema_version",):
            return (
                f"has schema version {item['input']!r:.50}, and this code reads {SCHEMA_VERSION}: "
                "it is of another release of skd"
            )
    lines = [line.removeprefix(": ") for line in format_validation_error("", error).split("\n")]
    shown = [
        line if len(line) <= MAX_PROBLEM_LENGTH else f"{line[:MAX_PROBLEM_LENGTH]}…"
        for line in lines
    ]
    more = len(lines) - MAX_PROBLEMS
    said = "; ".join(shown[:MAX_PROBLEMS])
    return f"is damaged: {said}" + (f"; and {more} more" if more > 0 else "")
