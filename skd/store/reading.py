"""Reading the store's JSON files: what is wrong with one is said in a phrase. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from skd.common.errors import SkdError
from skd.common.files import read_json
from skd.store.records import SCHEMA_VERSION
from skd.study.sheet import explain
from skd.study.spec import RunSpec

Model = TypeVar("Model", bound=BaseModel)
MOST_PROBLEMS, LONGEST = 3, 200  # said of one file; characters of each


class StoreError(SkdError):
    """A file of the store cannot be used. Says which, why, and what to do.

    Attributes:
        why: what is wrong, as a phrase that follows the file's name.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


def read_stored(
    model: type[Model], path: Path, remedy: str, judge: Callable[[Model], str | None]
) -> Model | None:
    """Return what a file of the store holds, or none where there is no file.

    Args:
        model: what the file holds.
        path: the file.
        remedy: what to do about a file that cannot be used, as a sentence.
        judge: returns what in the contents is inconsistent, or none.

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
        why = why_unreadable(error)
        raise StoreError(f"{path} {why}. {remedy}", why) from error
    if wrong := judge(found):
        why = f"is inconsistent: {wrong}"
        raise StoreError(f"{path} {why}. {remedy}", why)
    return found


def why_unreadable(error: OSError | ValueError) -> str:
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
    lines = [line.removeprefix(": ") for line in explain("", error).split("\n")]
    shown = [line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in lines]
    more = len(lines) - MOST_PROBLEMS
    said = "; ".join(shown[:MOST_PROBLEMS])
    return f"is damaged: {said}" + (f"; and {more} more" if more > 0 else "")
