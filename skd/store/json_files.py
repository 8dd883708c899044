"""Reading the store's JSON files, with a phrase for what is wrong with one. Imports no torch."""

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
MAX_PROBLEMS, MAX_PROBLEM_LENGTH = 3, 200  # per file; characters per problem


class StoreError(SkdError):
    """A file of the store cannot be used. The message says which, why, and what to do.

    Attributes:
        why: what is wrong, as a phrase to follow the file's name.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


def read_model(
    model: type[Model], path: Path, remedy: str, find_problem: Callable[[Model], str | None]
) -> Model | None:
    """Return the content of a file of the store; ``None`` if there is no file.

    Args:
        model: the model of the content.
        path: the file.
        remedy: what to do about a file that cannot be used, as a sentence.
        find_problem: returns what is inconsistent in the content, or ``None``.

    Raises:
        StoreError: the file cannot be read, or its content is inconsistent.
    """
    try:
        data = read_json(path)
        if isinstance(data, dict) and isinstance(data.get("spec"), dict):
            data["spec"] = RunSpec.restore(data["spec"])
        content = model.model_validate(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = unreadable_reason(error)
        raise StoreError(f"{path} {why}. {remedy}", why) from error
    if problem := find_problem(content):
        why = f"is inconsistent: {problem}"
        raise StoreError(f"{path} {why}. {remedy}", why)
    return content


def unreadable_reason(error: OSError | ValueError) -> str:
    """Return an error of `read_json` or of a validation as a phrase to follow the file's name."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if not isinstance(error, ValidationError):
        return f"is damaged: {error}"
    for item in error.errors():
        if item["loc"] == ("schema_version",):
            return (
                f"has schema version {item['input']!r:.50}, and this code reads {SCHEMA_VERSION}: "
                "another release of skd wrote it"
            )
    lines = [line.removeprefix(": ") for line in format_validation_error("", error).split("\n")]
    problems = [
        line if len(line) <= MAX_PROBLEM_LENGTH else f"{line[:MAX_PROBLEM_LENGTH]}…"
        for line in lines[:MAX_PROBLEMS]
    ]
    more = len(lines) - MAX_PROBLEMS
    return f"is damaged: {'; '.join(problems)}" + (f"; and {more} more" if more > 0 else "")
