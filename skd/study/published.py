"""Published accuracies: ``report/published/<dataset>.csv``, and ``skd.csv`` for the SKD paper's.

One row per (teacher, student, method). These files are the only place for numbers of papers. The
report and the checks of teachers read them. Imports no torch.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from skd.common.errors import SkdError
from skd.common.project import ROOT
from skd.study.spec import DatasetSpec, Recipe

PUBLISHED_FOLDER = ROOT / "report" / "published"
SKD_FILE = "skd.csv"  # the SKD paper's numbers, for all data sets
SKD_DATASETS = ("cifar100", "imagenet")  # the allowed values of its column "dataset"
# The recipes behind the published values, by data set.
COMMON_RECIPES = {
    "cifar100": Recipe(),
    "imagenet": Recipe(
        epochs=100,
        batch_size=512,
        learning_rate=0.2,
        milestones=(30, 60, 90),
        weight_decay=1e-4,
    ),
}
# Settings that differ for some students and methods; a sum has those of all its parts.
_SLOWER = {"learning_rate": 0.01}
_SMALLER = {"batch_size": 256, "learning_rate": 0.1}
STUDENT_SETTINGS = {
    "cifar100": {"MobileNetV2": _SLOWER, "ShuffleV1": _SLOWER, "ShuffleV2": _SLOWER}
}
_TWO_VIEWS = "mlkd_two_views"
METHOD_SETTINGS = {
    "cifar100": {_TWO_VIEWS: {"learning_rate": 0.025}},
    "imagenet": {"student": _SMALLER, "crd": _SMALLER, "reviewkd": _SMALLER},
}
# Settings of a method for one student; they precede the others.
METHOD_STUDENT_SETTINGS = {
    "cifar100": {
        (_TWO_VIEWS, "MobileNetV2"): {**_SLOWER, "epochs": 480},
        (_TWO_VIEWS, "ShuffleV2"): {**_SLOWER, "epochs": 960},
    }
}
# Settings that no publication states, and that cannot be compared.
UNSTATED_SETTINGS = {"imagenet": ("last_batch", "bn_batch")}

PublishedKey = tuple[str, str, str]  # (teacher's network, student, method)


class PublishedError(SkdError, ValueError):
    """A file of published values cannot be read. The message names the file and the line."""


class PublishedValue(BaseModel):
    """One published accuracy, with the protocol under which it was reported."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    teacher: str = Field(min_length=1)
    student: str = Field(min_length=1)
    method: str = Field(min_length=1)
    top1: FiniteFloat = Field(gt=1, le=100, description="in percent")
    top5: FiniteFloat | None = Field(None, gt=0, le=100)
    reported_epoch: Literal["last", "best", "unstated"]
    n_runs: PositiveInt | None = Field(None, description="runs of the mean; none: not stated")
    sd: NonNegativeFloat | None = Field(None, description="sample standard deviation, in points")
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check_spread(self) -> Self:
        if self.sd is not None and self.n_runs is None:
            raise ValueError("sd needs n_runs, the number of runs")
        return self


def published_values(
    dataset: DatasetSpec, folder: Path = PUBLISHED_FOLDER
) -> dict[PublishedKey, PublishedValue]:
    """Return the published values of a data set; empty if a comparison would be unfair.

    Published networks are trained on all training images and evaluated on the test set. A
    validation split, or fewer training images, therefore has no published values.

    Raises:
        PublishedError: a line of a file cannot be read, or a value occurs twice.
    """
    if dataset.split != "test" or dataset.train_limit is not None:
        return {}
    values: dict[PublishedKey, PublishedValue] = {}
    for where, row in _rows(folder, dataset.name):
        value = _value(row, where)
        key = (value.teacher, value.student, value.method)
        if key in values:
            raise PublishedError(f"{where}: {key} occurs twice; remove one of the lines")
        values[key] = value
    return values


def published_teacher(
    dataset: DatasetSpec, network: str, folder: Path = PUBLISHED_FOLDER
) -> PublishedValue | None:
    """Return the published value of a network as a teacher: the lowest one, or ``None``.

    Raises:
        PublishedError: as `published_values`.
    """
    values = [
        value
        for (teacher, _, method), value in published_values(dataset, folder).items()
        if (teacher, method) == (network, "teacher")
    ]
    return min(values, key=lambda value: value.top1, default=None)


def differences_from_published(
    dataset: DatasetSpec, recipe: Recipe, student: str = "", method: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Return how a run's recipe differs from the recipe behind the published values.

    Returns:
        (published, run's) by setting; empty if they agree, or if no recipe is known.
    """
    common = COMMON_RECIPES.get(dataset.name)
    if common is None:
        return {}
    settings = dict(STUDENT_SETTINGS.get(dataset.name, {}).get(student, {}))
    for part in method.split("+"):
        settings |= METHOD_SETTINGS.get(dataset.name, {}).get(part, {})
    for part in method.split("+"):
        settings |= METHOD_STUDENT_SETTINGS.get(dataset.name, {}).get((part, student), {})
    changes = recipe_changes(common.model_copy(update=settings), recipe)
    unstated = UNSTATED_SETTINGS.get(dataset.name, ())
    return {name: change for name, change in changes.items() if name not in unstated}


def recipe_changes(usual: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return how one recipe differs from another: (usual, other) by setting.

    Settings that have no effect in the other recipe are left out.
    """
    before, after = usual.model_dump(), other.model_dump()
    unused = other.without_effect()
    return {n: (before[n], after[n]) for n in after if after[n] != before[n] and n not in unused}


def _rows(folder: Path, dataset: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the place and the content of each row of a data set."""
    for name in (f"{dataset}.csv", SKD_FILE):
        path = folder / name
        if not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise PublishedError(f"{name}: not UTF-8 text: {error}") from error
        numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
        reader = csv.DictReader(line for _, line in numbered)
        for index, row in enumerate(reader, 1):
            where = f"{name}, line {numbered[index][0]}"
            if reader.line_num != index + 1:
                raise PublishedError(f"{where}: a quotation mark is not closed")
            if None in row:
                raise PublishedError(f"{where}: more values than the header has names")
            clean = {key: (text or "").strip() or None for key, text in row.items()}
            if name == SKD_FILE:
                row_dataset = clean.pop("dataset", None)
                if row_dataset not in SKD_DATASETS:
                    allowed = ", ".join(SKD_DATASETS)
                    raise PublishedError(f"{where}: dataset: allowed: {allowed}")
                if row_dataset != dataset:
                    continue
            yield where, clean


def _value(row: dict[str, str | None], where: str) -> PublishedValue:
    try:
        return PublishedValue.model_validate(row)
    except ValidationError as error:
        problems = "; ".join(": ".join([*e["loc"], e["msg"]]) for e in error.errors())
        raise PublishedError(f"{where}: {problems}") from error
