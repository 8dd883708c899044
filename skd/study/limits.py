"""Limits of the numbers that a sheet may set, with their reasons. Imports no torch.

The limits apply to sheets, not to stored specs: records of earlier versions stay readable.
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
MAX_OPERATIONS = 14  # of RandAugment on an image: as many as there are
MAX_MAGNITUDE, MIN_MAGNITUDE = 1e9, 1e-12
IMAGE_SIZE_RANGE = (8, 1024)
MAX_SHEET_CLASSES = 2**16
MAX_PHOTOS = 10**8


def expand_seeds(seeds: Any) -> Any:
    """Return the list of seeds for a number of seeds: 3 becomes 0, 1, 2.

    Anything else is returned unchanged.

    Raises:
        ValueError: no seeds, or more than a study can have.
    """
    count = len(seeds) if isinstance(seeds, list) else seeds
    if type(count) is int and not 1 <= count <= MAX_SEEDS:
        raise ValueError(
            f"{format_value(count)} seeds: write a number of seeds from 1 to {MAX_SEEDS:,} (each "
            "adds a run to every cell), or a list of seeds such as [0, 1, 2]"
        )
    return list(range(seeds)) if type(seeds) is int else seeds


def seed_problem(seed: int) -> str | None:
    """Return why a number cannot be a seed; ``None`` if it can."""
    if 0 <= seed < SEED_LIMIT:
        return None
    return (
        f"seed {format_value(seed)}: allowed: 0 to {SEED_LIMIT - 1} (32 bits, which fit into a "
        "column of every table)"
    )


def folder_problem(folder: FolderSpec) -> str | None:
    """Return which number of a description of photos is out of bounds; ``None`` if none is."""
    low, high = IMAGE_SIZE_RANGE
    if not low <= folder.size <= high:
        return (
            f"size {format_value(folder.size)}: allowed: {low} to {high} pixels (every network has "
            "to process images of this height and width)"
        )
    maximum = min(MAX_SHEET_CLASSES, folder.train_images)
    if not 2 <= folder.classes <= maximum:
        return (
            f"classes {format_value(folder.classes)}: allowed: 2 to {maximum} (at most "
            f"{MAX_SHEET_CLASSES:,}, each with at least one training image)"
        )
    for name in ("train_images", "test_images"):
        if (count := getattr(folder, name)) > MAX_PHOTOS:
            return (
                f"{name} {format_value(count)}: allowed: up to {MAX_PHOTOS:,} (their list is held "
                "in memory)"
            )
    return None


def recipe_problem(recipe: Recipe) -> str | None:
    """Return which number of a recipe prevents training; ``None`` if none does."""
    if recipe.epochs > MAX_EPOCHS:
        return (
            f"epochs {format_value(recipe.epochs)}: allowed: up to {MAX_EPOCHS:,} (a run's record "
            "has a row for each epoch)"
        )
    if recipe.momentum >= 1:
        return f"momentum {recipe.momentum:g}: must be less than 1, or steps grow without bound"
    if recipe.nesterov and not recipe.momentum:
        return "nesterov: true needs a momentum greater than 0"
    if recipe.randaugment_operations > MAX_OPERATIONS:
        return (
            f"randaugment_operations {format_value(recipe.randaugment_operations)}: allowed: up to "
            f"{MAX_OPERATIONS} (more leave nothing of an image)"
        )
    if max(recipe.betas) >= 1:
        return f"betas {format_value(list(recipe.betas))}: both must be less than 1"
    if recipe.minimum_learning_rate > recipe.learning_rate:
        return (
            f"minimum_learning_rate {recipe.minimum_learning_rate:g}: must be at most the "
            f"learning_rate, {recipe.learning_rate:g}"
        )
    names = (
        "learning_rate",
        "learning_rate_decay",
        "weight_decay",
        "betas",
        "eps",
        "minimum_learning_rate",
        "mixing_alpha",
    )
    return settings_problem({name: getattr(recipe, name) for name in names})


def settings_problem(settings: Mapping[str, Any]) -> str | None:
    """Return which setting is too large or too small to compute with; ``None`` if none is."""
    problems = (_number_problem(name, value) for name, value in settings.items())
    return next(filter(None, problems), None)


def _number_problem(name: str, value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return settings_problem({f"{name}[{index}]": item for index, item in enumerate(value)})
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and value > MAX_COUNT:
        return (
            f"{name} {format_value(value)}: allowed: up to {MAX_COUNT:,} (more does not fit into "
            "memory)"
        )
    if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:
        return (
            f"{name} {value:g}: allowed: {MIN_MAGNITUDE:g} to {MAX_MAGNITUDE:g} in magnitude, or 0 "
            "if the setting may be 0 (training computes in float32)"
        )
    return None
