"""The recipes of a sheet, with the changes of teachers, students and methods. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from skd.common.validation_messages import format_value
from skd.study.limits import recipe_problem
from skd.study.sheet import format_validation_error
from skd.study.sheet_files import StudyError
from skd.study.spec import Recipe

DEFAULT_RECIPE = Recipe()


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe, and the places in the sheet that set it.

    Attributes:
        recipe: all settings.
        where: the place of the last change.
        places: the place of each setting, by name; a default has none.
    """

    recipe: Recipe
    where: str = "recipe"
    places: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_study(cls, recipe: Recipe) -> WrittenRecipe:
        """Return the study's recipe."""
        return cls(recipe, places=dict.fromkeys(recipe.model_fields_set, "recipe"))

    def with_changes(self, changes: Mapping[str, Any], where: str) -> WrittenRecipe:
        """Return the recipe with some settings changed at a place of the sheet.

        Raises:
            StudyError: an unknown setting, or a value that it cannot have.
        """
        if not changes:
            return self
        try:
            recipe = Recipe.model_validate({**self.recipe.model_dump(), **changes})
        except ValidationError as error:
            raise StudyError(format_validation_error(where, error)) from error
        return WrittenRecipe(recipe, where, {**self.places, **dict.fromkeys(changes, where)})

    def validated(self, images: int) -> Recipe:
        """Return the recipe, checked for a number of training images.

        Raises:
            StudyError: a number is out of bounds, or a setting cannot take effect. The message
                says what to write.
        """
        problem = recipe_problem(self.recipe) or self._ineffective_setting(images)
        if problem:
            raise StudyError(f"{self.where}: {problem}")
        return self.recipe

    def _ineffective_setting(self, images: int) -> str | None:
        """Return which setting cannot take effect and what to write instead; ``None`` if all do."""
        recipe, last = self.recipe, self.recipe.epochs
        if beyond := [epoch for epoch in recipe.milestones if epoch >= last]:
            return (
                f"milestones {', '.join(map(format_value, beyond))}{self._origin('milestones')}: "
                f"training ends with epoch {last}, before they take effect; "
                f"{_milestones_advice(last)}"
            )
        if recipe.batch_size > images:
            return (
                f"batch_size {format_value(recipe.batch_size)}{self._origin('batch_size')}: there "
                f"are only {images} training images; write batch_size: {images} or less"
            )
        if recipe.bn_batch is not None and recipe.bn_batch > recipe.batch_size:
            return (
                f"bn_batch {format_value(recipe.bn_batch)}{self._origin('bn_batch')}: a batch has "
                f"only {recipe.batch_size} images; write bn_batch: {recipe.batch_size} or less"
            )
        return None

    def _origin(self, name: str) -> str:
        """Return the origin of a setting for messages; empty for the place of the last change."""
        place = self.places.get(name)
        if place is None:
            return " (the default)"
        return f" (from {place})" if place != self.where else ""


def _milestones_advice(epochs: int) -> str:
    """Return which milestones to write: those of the default recipe, scaled to the epochs."""
    scaled = sorted(
        {round(epochs * epoch / DEFAULT_RECIPE.epochs) for epoch in DEFAULT_RECIPE.milestones}
    )
    within = [epoch for epoch in scaled if 0 < epoch < epochs]
    empty = "milestones: [] for a constant learning rate"
    return f"write milestones: {within}, or {empty}" if within else f"write {empty}"
