"""Optimisers, schedules and label smoothing in a sheet: what is refused, and what is inherited."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from skd.expansion.expand import expand_sheet
from skd.study.expansion import Expansion
from skd.study.sheet import Sheet, StudyError
from skd.study.spec import Recipe
from tests.builders import tiny

ADAMW = {"optimizer": "adamw", "learning_rate": 0.001}


def expanded(**changes: Any) -> Expansion:
    sheet = {**copy.deepcopy(tiny.SHEET), "methods": ["student", "kd"], **changes}
    return expand_sheet(Sheet.model_validate(sheet), study="mine")


def teacher(**train: Any) -> dict[str, Any]:
    return {"teacher": {"network": "resnet8", "train": {"seed": 0, **train}}}


def own(**recipe: Any) -> dict[str, Any]:
    return {"methods": ["student", {"name": "own", "like": "kd", "recipe": recipe}]}


def study(**recipe: Any) -> dict[str, Any]:
    return {"recipe": {"epochs": 3, **recipe}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            study(**ADAMW, milestones=[2], momentum=0.9),
            "recipe: momentum has an effect only with optimizer: sgd, but the recipe has "
            "optimizer: adamw; remove momentum, or write it where the optimizer is sgd",
        ),
        (own(**ADAMW, nesterov=False), "methods: own: recipe: nesterov has an effect only with"),
        (own(betas=[0.9, 0.99]), "own: recipe: betas has an effect only with optimizer: adamw"),
        (
            {"student_recipes": {"resnet8": {"eps": 1e-6}}},
            "student_recipes.resnet8: eps has an effect only with optimizer: adamw",
        ),
        (
            {"teachers": teacher(recipe={**ADAMW, "momentum": 0.5})},
            "teachers.teacher.train.recipe: momentum has an effect only",
        ),
        (
            study(schedule="cosine", milestones=[2]),
            "recipe: milestones has an effect only with schedule: steps",
        ),
        (own(schedule="cosine", learning_rate_decay=0.2), "learning_rate_decay has an effect"),
        (own(minimum_learning_rate=1e-5), "minimum_learning_rate has an effect only with sched"),
        (own(schedule="cosine", minimum_learning_rate=1), "must be at most the learning_rate, 0"),
        (own(warmup_epochs=3), "warmup_epochs 3: training ends with epoch 3; write warmup_ep.*2"),
        (own(**ADAMW, betas=[0.9, 1]), r"betas \[0.9, 1.0\]: both must be less than 1"),
        (own(**ADAMW, betas=[0.9]), "betas"),
        (own(optimizer="adam"), "optimizer: allowed: 'sgd' or 'adamw', got 'adam'"),
        (own(schedule="linear"), "schedule: allowed: 'steps' or 'cosine'"),
        (
            own(optimizer="adamw"),
            r"own: recipe: learning_rate 0.05 \(the default\) is meant for optimizer: sgd; write a "
            "learning_rate for adamw beside it, for example 0.001",
        ),
        (
            {
                **study(**ADAMW, milestones=[2]),
                "student_recipes": {"resnet8": {"learning_rate": 0.01}},
            },
            r"learning_rate 0.01 is meant for optimizer: sgd; .* also optimizer: adamw",
        ),
        (
            {**study(**ADAMW, milestones=[2]), **own(optimizer="sgd")},
            r"learning_rate 0.001 \(from recipe\) is meant for optimizer: adamw; .* example 0.05",
        ),
        (
            {"teachers": teacher(settings={"cross_entropy": {"label_smoothing": 1}})},
            "teachers.teacher.train: term cross_entropy: label_smoothing: must be at le",
        ),
        (
            {"teachers": teacher(settings={"kd": {"temperature": 2}})},
            "teachers.teacher.train: settings: has no part 'kd'",
        ),
        (
            {"teachers": teacher(settings={"cross_entropy": {"smoothing": 0.1}})},
            "teachers.teacher.train: term cross_entropy: unknown key 'smoothing'",
        ),
        (
            {"settings": {"kd": {"label_smoothing": 0.1}}},
            "term kd: unknown key 'label_smoothing'",
        ),
    ],
)
def test_settings_without_effect_are_refused_where_they_are_written(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        expanded(**changes)


def test_another_optimiser_and_schedule_leave_the_settings_of_the_former_behind() -> None:
    recipe = {"epochs": 30, "milestones": [20], "momentum": 0.8, "nesterov": True}
    changes = {"recipe": recipe, "teachers": teacher()}
    changes |= own(**ADAMW, schedule="cosine", warmup_epochs=5)
    cells = {cell.method: cell.spec.recipe for cell in expanded(**changes).cells}
    assert cells["student"] == Recipe(**recipe)
    assert cells["own"] == Recipe(epochs=30, **ADAMW, schedule="cosine", warmup_epochs=5)
    # Back at an inner place, they are those of the outer one.
    changes["student_recipes"] = {"resnet8": {**ADAMW, "betas": [0.9, 0.95]}}
    changes |= own(optimizer="sgd", learning_rate=0.02)
    cells = {cell.method: cell.spec.recipe for cell in expanded(**changes).cells}
    assert cells["student"].betas == (0.9, 0.95)
    assert cells["own"] == Recipe(**recipe, learning_rate=0.02)


def test_the_default_milestones_are_no_error_with_a_cosine() -> None:
    expansion = expanded(**study(schedule="cosine"), teachers=teacher())
    assert {cell.spec.recipe for cell in expansion.cells} == {Recipe(epochs=3, schedule="cosine")}


def test_what_was_added_later_changes_no_identity_at_its_neutral_value() -> None:
    neutral = {"optimizer": "sgd", "schedule": "steps", "warmup_epochs": 0}
    smoothing = {"cross_entropy": {"label_smoothing": 0}}
    plain = expanded()
    written = expanded(
        recipe={**tiny.SHEET["recipe"], **neutral},
        settings=smoothing,
        teachers=teacher(seed=7, recipe={"epochs": 2, "milestones": []}, settings=smoothing),
    )
    assert [cell.runs for cell in written.cells] == [cell.runs for cell in plain.cells]
    assert written.teachers[0].id == plain.teachers[0].id


def test_label_smoothing_is_a_setting_of_the_students_or_of_a_teacher_alone() -> None:
    smoothing = {"cross_entropy": {"label_smoothing": 0.1}}
    plain, students = expanded(), expanded(settings=smoothing)
    own_teacher = {"seed": 7, "recipe": {"epochs": 2, "milestones": []}, "settings": smoothing}
    taught = expanded(teachers=teacher(**own_teacher))
    assert students.teachers[0].id == plain.teachers[0].id != taught.teachers[0].id
    alone = [study.cell("resnet8", "student").runs for study in (plain, students, taught)]
    assert alone[0] == alone[2] != alone[1]
    (term,) = taught.teachers[0].spec.run.method.terms
    assert term.settings["label_smoothing"] == 0.1
