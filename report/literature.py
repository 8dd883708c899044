"""Published accuracies: ``published/<dataset>.csv``, one row a (teacher, student, method).

A reader of a paper adds its numbers there, and nowhere else.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, ValidationError

from skd.errors import SkdError
from skd.spec import DatasetSpec

FOLDER = Path(__file__).with_name("published")

Key = tuple[str, str, str]  # (teacher's network, student, method)


class PublishedError(SkdError, ValueError):
    """A file of published values cannot be read. The message names the file and the line."""


class PublishedValue(BaseModel):
    """One published accuracy, with the protocol under which it was reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str
    student: str
    method: str
    top1: FiniteFloat
    reported_epoch: Literal["last", "best", "unstated"]
    n_runs: PositiveInt | None = None
    source: str


def published_values(dataset: DatasetSpec, folder: Path = FOLDER) -> dict[Key, PublishedValue]:
    """Return what is published for a data set; empty where a comparison would be unfair.

    Published numbers are of networks trained on all training images and evaluated on the test
    set, so a validation split or fewer training images have none.

    Raises:
        PublishedError: the file has a line that cannot be read, or a value twice.
    """
    path = folder / f"{dataset.name}.csv"
    if dataset.split != "test" or dataset.train_limit is not None or not path.is_file():
        return {}
    values: dict[Key, PublishedValue] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            value = _value({name: text or None for name, text in row.items()}, path, reader)
            key = (value.teacher, value.student, value.method)
            if key in values:
                raise PublishedError(f"{path.name}, line {reader.line_num}: {key} is there twice")
            values[key] = value
    return values


def _value(row: dict[str, str | None], path: Path, reader: csv.DictReader) -> PublishedValue:
    try:
        return PublishedValue.model_validate(row)
    except ValidationError as error:
        problems = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise PublishedError(f"{path.name}, line {reader.line_num}: {problems}") from error
