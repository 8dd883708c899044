"""The cells of a sheet: every pair with every method, resolved and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skd.data.images import DatasetFacts
from skd.expansion.dry_run import fit_problem, objective_profile
from skd.expansion.method_teachers import MethodTeachers
from skd.expansion.sheet_checks import check_network_at
from skd.losses.methods import (
    check_settings,
    mixing_problem,
    resolve_method,
    teacher_needs,
    uses_partner,
)
from skd.losses.methods import needs_teacher as method_needs_teacher
from skd.study.expansion import Cell, TeacherNode
from skd.study.ineffective_settings import (
    explicit_settings,
    ineffective_default,
    ineffective_group,
    notes_on_equal_methods,
    notes_on_long_settings,
    notes_on_unused_settings,
)
from skd.study.sheet import Sheet, SheetMethod, SheetPair, network_in_specs
from skd.study.sheet_files import StudyError
from skd.study.sheet_recipes import WrittenRecipe
from skd.study.spec import MethodSpec, Recipe, RunSpec

Settings = Mapping[str, Mapping[str, Any]]


@dataclass
class CellResolver:
    """Resolves the pairs and methods of a sheet.

    Attributes:
        sheet: the sheet.
        dataset: number and size of its images.
        recipe: the study's recipe.
        teachers: the teachers of the pairs and methods.
        cells: the cells by key, filled by `resolve`.
        notes: settings without full effect, filled by `resolve`; the same note may occur twice.
    """

    sheet: Sheet
    dataset: DatasetFacts
    recipe: WrittenRecipe
    teachers: MethodTeachers
    cells: dict[str, Cell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def resolve(self) -> None:
        """Resolve all pairs, in the order of the sheet.

        Raises:
            StudyError: an unknown network, method, term or setting, or a method that cannot work
                on a pair.
        """
        for pair in self.sheet.pairs:
            recipe = self._student_recipe(pair)
            for method in self.sheet.methods:
                self._resolve_cell(pair, method, recipe)
        self.notes += notes_on_equal_methods(self.sheet.methods, self.cells.values())
        methods = [cell.spec.method for cell in self.cells.values()]
        self.notes += [*self.teachers.notes]
        self.notes += notes_on_unused_settings(self.sheet.settings, methods)

    def _student_recipe(self, pair: SheetPair) -> WrittenRecipe:
        """Check what a pair sets, and return the recipe of its student."""
        network = network_in_specs(self.sheet, pair.student)
        check_network_at("pairs: student", network, self.dataset, is_trained=True)
        check_settings(pair.settings, _place(pair))
        changes = self.sheet.student_recipes.get(pair.student, {})
        recipe = self.recipe.with_changes(changes, f"student_recipes.{pair.student}")
        if pair.student in self.sheet.student_recipes and recipe.recipe == self.sheet.recipe:
            self.notes.append(f"student_recipes: {pair.student}: its recipe is the study's")
        if all(map(pair.leaves_out, self.sheet.methods)):
            raise StudyError(
                f"{_place(pair)}: without: no method is left; leave the pair out instead"
            )
        return recipe

    def _resolve_cell(
        self, pair: SheetPair, method: SheetMethod, student_recipe: WrittenRecipe
    ) -> None:
        own_recipe = student_recipe.with_changes(method.recipe, f"methods: {method.name}: recipe")
        resolved = resolve_method(method, self.sheet.settings)
        needs_teacher = method_needs_teacher(resolved)
        _check_teacher(method, resolved, needs_teacher)
        if pair.leaves_out(method):
            _check_without(pair, method, needs_teacher)
            return
        recipe = own_recipe.validated(self.dataset.train_images)
        levels: list[Settings] = [self.sheet.settings]
        if needs_teacher:  # settings of a pair do not apply to a student alone
            levels.append(pair.settings)
            resolved = resolve_method(method, _merge_settings(*levels))
        teacher = self.teachers.node(pair, method) if needs_teacher else None
        spec = RunSpec(
            dataset=self.sheet.dataset,
            network=network_in_specs(self.sheet, pair.student),
            teacher=teacher and teacher.spec,
            method=resolved,
            recipe=recipe,
            seed=self.sheet.seeds[0],
        )
        _check_mixing(pair, method, spec)
        self._check_fit(pair, method, spec)
        _check_effect(pair, method, resolved, recipe, levels)
        cell = self._cell(pair, method, spec, teacher)
        self.cells.setdefault(cell.key, cell)
        long_settings = notes_on_long_settings(resolved, recipe)
        self.notes += [f"methods: {method.name}: {note}" for note in long_settings]

    def _check_fit(self, pair: SheetPair, method: SheetMethod, spec: RunSpec) -> None:
        if problem := fit_problem(spec, self.dataset):
            raise StudyError(
                f"{_place(pair)}: {method.name}: {problem}; to leave the method out, give the pair "
                f"'without: [{method.name}]'"
            )

    def _cell(
        self, pair: SheetPair, method: SheetMethod, spec: RunSpec, teacher: TeacherNode | None
    ) -> Cell:
        seeds = self.sheet.seeds
        return Cell(
            pair=f"{pair.teacher}--{pair.student}" if teacher else pair.student,
            method=method.name,
            teacher=teacher and teacher.name,
            student=pair.student,
            spec=spec,
            runs={seed: spec.model_copy(update={"seed": seed}).identity for seed in seeds},
            extra=objective_profile(spec, self.dataset),
            needs=tuple(sorted(teacher_needs(spec.method))),
        )


def _place(pair: SheetPair) -> str:
    """Return the place of a pair in the sheet, for messages."""
    return f"pairs: {pair.teacher}--{pair.student}"


def _check_teacher(method: SheetMethod, resolved: MethodSpec, needs_teacher: bool) -> None:
    """Refuse a method that trains a teacher for a student, and a teacher that no term reads."""
    if uses_partner(resolved):
        raise StudyError(
            f"methods: {method.name}: trains a teacher to suit a student; write it as the method "
            "of a teacher (teachers: {NAME: {train: {method: …}}}, or a method's own "
            "teacher: {method: …})"
        )
    if method.teacher is not None and not needs_teacher:
        raise StudyError(f"methods: {method.name}: teacher: the method learns from no teacher")


def _check_without(pair: SheetPair, method: SheetMethod, needs_teacher: bool) -> None:
    if not needs_teacher:
        raise StudyError(
            f"{_place(pair)}: without: {method.name} needs no teacher: it belongs to the "
            "student, not to a pair"
        )


def _check_mixing(pair: SheetPair, method: SheetMethod, spec: RunSpec) -> None:
    """Refuse a method that cannot be trained on the mixed images of its recipe."""
    if problem := mixing_problem(spec.method, spec.recipe):
        raise StudyError(
            f"{_place(pair)}: {method.name}: {problem}; give the method "
            f"'recipe: {{mixing: none}}', or the pair 'without: [{method.name}]'"
        )


def _check_effect(
    pair: SheetPair,
    method: SheetMethod,
    resolved: MethodSpec,
    recipe: Recipe,
    levels: list[Settings],
) -> None:
    """Refuse a default, or a group of the simplifier, that cannot take effect."""
    explicit = explicit_settings(method, *levels)
    problem = ineffective_default(resolved, recipe, explicit) or ineffective_group(resolved, recipe)
    if problem:
        raise StudyError(f"{_place(pair)}: {method.name}: {problem}")


def _merge_settings(*levels: Settings) -> dict[str, dict[str, Any]]:
    """Return settings by term; later levels override earlier ones."""
    names = dict.fromkeys(name for level in levels for name in level)
    return {name: {k: v for lv in levels for k, v in lv.get(name, {}).items()} for name in names}
