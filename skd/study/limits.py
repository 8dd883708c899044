"""The largest and smallest numbers that a sheet may set, and why. Imports no torch.

A sheet's numbers are checked, not those of stored specs: what has been trained stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skd.common.validation_messages import format_value
from skd.study.spec import FolderSpec, Recipe

MAX_SEEDS = 10_000
SEED_LIMIT = 2**32
MAX_EPOCHS = 100_000
MAX_COUNT = 2**20
MAX_MAGNITUDE, MIN_MAGNITUDE = 1e9, 1e-12
IMAGE_SIZE_RANGE = (8, 1024)
MAX_SHEET_CLASSES = 2**16
MAX_PHOTOS = 10**8


def expand_seeds(seeds: Any) -> Any:
    """Return the seeds that a number of them stands for: 3 is 0, 1, 2. Anything else is unchanged.

    Raises:
        ValueError: more seeds than a study can have, or none.
    """
    count = len(seeds) if isinstance(seeds, list) else seeds
    if type(count) is int and not 1 <= count <= MAX_SEEDS:
        raise ValueError(
            f"{format_value(count)} seeds: write a number of seeds from 1 to {MAX_SEEDS:,} (each is a "
            "run of every cell), or a list of them such as [0, 1, 2]"
        )
    return list(range(seeds)) if type(seeds) is int else seeds


def seed_problem(seed: int) -> str | None:
    """Return why a number cannot be a seed, or none."""
    if 0 <= seed < SEED_LIMIT:
        return None
    return f"seed {format_value(seed)}: allowed: 0 to {SEED_LIMIT - 1} (32 bits, which every table can hold)"


def folder_problem(folder: FolderSpec) -> str | None:
    """Return why photos in folders cannot be as many or as large as described, or none."""
    low, high = IMAGE_SIZE_RANGE
    if not low <= folder.size <= high:
        return (
            f"size {format_value(folder.size)}: allowed: {low} to {high} pixels (an image of that "
            "height and width has to pass through every network)"
        )
    most = min(MAX_SHEET_CLASSES, folder.train_images)
    if not 2 <= folder.classes <= most:
        return (
            f"classes {format_value(folder.classes)}: allowed: 2 to {most} (at most {MAX_SHEET_CLASSES:,}, "
            "and each has at least one of the training images)"
        )
    for name in ("train_images", "test_images"):
        if (count := getattr(folder, name)) > MAX_PHOTOS:
            most = f"{MAX_PHOTOS:,} (their list is kept in memory)"
            return f"{name} {format_value(count)}: allowed: up to {most}"
    return None


def recipe_problem(recipe: Recipe) -> str | None:
    """Return why nothing can be trained by a recipe's numbers, or none."""
    if recipe.epochs > MAX_EPOCHS:
        return (
            f"epochs {format_value(recipe.epochs)}: allowed: up to {MAX_EPOCHS:,} (a run's record holds "
            "a row for each)"
        )
    if recipe.momentum >= 1:
        return f"momentum {recipe.momentum:g}: must be less than 1, or steps grow without end"
    if recipe.nesterov and not recipe.momentum:
        return "nesterov: true needs a momentum above 0"
    names = ("learning_rate", "learning_rate_decay", "weight_decay")
    return settings_problem({name: getattr(recipe, name) for name in names})


def settings_problem(settings: Mapping[str, Any]) -> str | None:
    """Return which number of some settings is too large or too small to compute with, or none."""
    problems = (_number_problem(name, value) for name, value in settings.items())
    return next(filter(None, problems), None)


def _number_problem(name: str, value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return settings_problem({f"{name}[{place}]": item for place, item in enumerate(value)})
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and value > MAX_COUNT:
        return (
            f"{name} {format_value(value)}: allowed: up to {MAX_COUNT:,} (more fits into no memory)"
        )
    if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:
        return (
            f"{name} {value:g}: allowed: {MIN_MAGNITUDE:g} to {MAX_MAGNITUDE:g} in size, or 0 where that is "
            "allowed (training computes in float32)"
        )
    return None
