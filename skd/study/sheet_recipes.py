"""The recipes of a sheet, with the changes of teachers, students and methods. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from skd.common.validation_messages import format_value
from skd.study.limits import recipe_problem
from skd.study.sheet import format_validation_error
from skd.study.sheet_files import StudyError
from skd.study.spec import Recipe

DEFAULT_RECIPE = Recipe()
INHERITED = ("student_recipes.", "teachers.")  # places whose rate names its optimiser
_USUAL_RATES = {"sgd": DEFAULT_RECIPE.learning_rate, "adamw": 1e-3}  # for advice only


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe, and the places in the sheet that set it.

    A place may change the optimiser or the schedule. The settings that only the former one has
    then have no effect, and `validated` returns their defaults.

    Attributes:
        recipe: all settings, also those without effect.
        where: the place of the last change.
        places: the place of each setting, by name; a default has none.
        rate_of: the optimiser for which the learning rate was written.
    """

    recipe: Recipe
    where: str = "recipe"
    places: Mapping[str, str] = field(default_factory=dict)
    rate_of: str = DEFAULT_RECIPE.optimizer

    @classmethod
    def from_study(cls, recipe: Recipe) -> WrittenRecipe:
        """Return the study's recipe.

        Raises:
            StudyError: a setting that the recipe's optimiser or schedule does not have.
        """
        return cls(DEFAULT_RECIPE)._written(recipe, recipe.model_fields_set, "recipe")

    def with_changes(self, changes: Mapping[str, Any], where: str) -> WrittenRecipe:
        """Return the recipe with some settings changed at a place of the sheet.

        Raises:
            StudyError: an unknown setting, a value that it cannot have, or a setting that the
                optimiser or the schedule at that place does not have.
        """
        if not changes:
            return self
        try:
            recipe = Recipe.model_validate({**self.recipe.model_dump(), **changes})
        except ValidationError as error:
            raise StudyError(format_validation_error(where, error)) from error
        return self._written(recipe, changes, where)

    def _written(self, recipe: Recipe, names: Iterable[str], where: str) -> WrittenRecipe:
        """Return a recipe in which a place has written some settings."""
        written = set(names)
        for name, owner in recipe.without_effect().items():
            if name in written:
                key = owner.split(":")[0]
                raise StudyError(
                    f"{where}: {name} has an effect only with {owner}, but the recipe has "
                    f"{key}: {getattr(recipe, key)}; remove {name}, or write it where the {key} is "
                    f"{owner.split()[1]}"
                )
        places = {**self.places, **dict.fromkeys(written, where)}
        rate_of = self.rate_of
        if "learning_rate" in written:
            # Students' and teachers' recipes may come from a sheet that this one extends.
            is_inherited = where.startswith(INHERITED) and "optimizer" not in written
            rate_of = DEFAULT_RECIPE.optimizer if is_inherited else recipe.optimizer
        return WrittenRecipe(recipe, where, places, rate_of)

    def validated(self, images: int) -> Recipe:
        """Return the recipe, checked for a number of training images.

        Raises:
            StudyError: a number is out of bounds, or a setting cannot take effect. The message
                says what to write.
        """
        recipe = self._with_effect()
        written = replace(self, recipe=recipe)
        problem = recipe_problem(recipe) or written._ineffective_setting(images)
        if problem:
            raise StudyError(f"{self.where}: {problem}")
        return recipe

    def _with_effect(self) -> Recipe:
        """Return the recipe with the defaults of the settings that have no effect."""
        defaults = {name: getattr(DEFAULT_RECIPE, name) for name in self.recipe.without_effect()}
        return self.recipe.model_copy(update=defaults)

    def _ineffective_setting(self, images: int) -> str | None:
        """Return which setting cannot take effect and what to write instead; ``None`` if all do."""
        recipe = self.recipe
        if problem := self._schedule_problem():
            return problem
        if recipe.optimizer != self.rate_of:
            return (
                f"learning_rate {recipe.learning_rate:g}{self._origin('learning_rate')} is meant "
                f"for optimizer: {self.rate_of}; write a learning_rate for {recipe.optimizer} "
                f"beside it, for example {_USUAL_RATES[recipe.optimizer]:g}, and in "
                f"student_recipes and teachers also optimizer: {recipe.optimizer}"
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
        return self._idle_view_setting()

    def _idle_view_setting(self) -> str | None:
        """Return which setting of augmentation or mixing has no effect; ``None`` if all have."""
        recipe = self.recipe
        for name in ("randaugment_operations", "randaugment_magnitude"):
            if name in self.places and recipe.augmentation != "randaugment":
                return (
                    f"{name}{self._origin(name)} has no effect with augmentation: "
                    f"{recipe.augmentation}; write augmentation: randaugment, or leave it out"
                )
        if "mixing_alpha" in self.places and recipe.mixing == "none":
            return (
                f"mixing_alpha{self._origin('mixing_alpha')} has no effect with mixing: none; "
                "write mixing: mixup or mixing: cutmix, or leave it out"
            )
        if recipe.mixing != "none" and 1 in (recipe.batch_size, recipe.bn_batch):
            name = "batch_size" if recipe.batch_size == 1 else "bn_batch"
            return (
                f"{name} 1{self._origin(name)}: mixing: {recipe.mixing} mixes the images of "
                f"such a group with each other; write {name}: 2 or more"
            )
        return None

    def _schedule_problem(self) -> str | None:
        """Return which milestone or warm-up the training is too short for, or ``None``."""
        recipe, last = self.recipe, self.recipe.epochs
        beyond = [epoch for epoch in recipe.milestones if epoch >= last]
        if beyond and recipe.schedule == "steps":
            return (
                f"milestones {', '.join(map(format_value, beyond))}{self._origin('milestones')}: "
                f"training ends with epoch {last}, before they take effect; "
                f"{_milestones_advice(last)}"
            )
        if recipe.warmup_epochs >= last:
            return (
                f"warmup_epochs {format_value(recipe.warmup_epochs)}"
                f"{self._origin('warmup_epochs')}: training ends with epoch {last}; write "
                f"warmup_epochs: {last - 1} or less"
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
