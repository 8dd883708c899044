"""Which changes of a sheet change the identities of which runs and teachers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from skd.study.expansion import Expansion
from tests.builders.sheets import SHEET, Change, cells_that_differ, put, run_ids, teacher_ids

# Effects of an edit.


def test_cosmetic_edits_change_no_identity(expanded: Callable[..., Expansion]) -> None:
    plain = expanded()

    def turned(value: Any) -> Any:
        return (
            {key: turned(item) for key, item in reversed(value.items())}
            if isinstance(value, dict)
            else value
        )

    spelled = copy.deepcopy(SHEET)
    spelled["recipe"] |= {"batch_size": 64, "learning_rate": "5e-2", "epochs": 4.0}
    spelled["dataset"] |= {"split": "test", "train_limit": None}
    spelled["settings"] = {"kd": {"temperature": 4}, "simplifier": {"temperature": "4"}}
    spelled["teachers"]["wrn_16_2"] = {"network": "wrn_16_2", "train": {"seed": 0, "recipe": {}}}
    spelled["title"], spelled["description"] = "Another", "More words"
    spelled["seeds"] = [1, 0]
    spelled["figures"] = {"methods": ["kd"]}
    spelled["display"] = {"skd": "Ours", "resnet20": "ResNet 20", "big": "Large"}
    spelled["tables"] = {"layout": "methods-as-columns", "spread": "interval"}
    texts = [
        "# a comment\n" + yaml.safe_dump(SHEET),
        yaml.safe_dump(turned(SHEET), sort_keys=False),
        yaml.safe_dump(spelled),
    ]
    for text in texts:
        other = expanded(text=text)
        assert run_ids(other) == run_ids(plain)
        assert teacher_ids(other) == teacher_ids(plain)


@pytest.mark.parametrize(
    "change",
    [put("recipe", "weight_decay", 0.001), put("dataset", "train_limit", 100)],
    ids=["recipe", "dataset"],
)
def test_the_recipe_and_the_data_change_every_identity(
    expanded: Callable[..., Expansion], change: Change
) -> None:
    before, after = expanded(), expanded(change)
    assert not set(run_ids(before).values()) & set(run_ids(after).values())
    assert not set(teacher_ids(before).values()) & set(teacher_ids(after).values())


@pytest.mark.parametrize(
    "change",
    [
        put("teachers", "big", "train", "seed", 1),
        put("teachers", "big", "train", "recipe", {"epochs": 5}),
        put("teachers", "big", "network", "resnet32"),
    ],
    ids=["seed", "recipe", "network"],
)
def test_another_teacher_changes_itself_and_its_students_alone(
    expanded: Callable[..., Expansion], change: Change
) -> None:
    before, after = expanded(), expanded(change)
    assert cells_that_differ(before, after) == {
        f"big--{student}/{method}"
        for student in ("resnet8", "resnet14")
        for method in ("kd", "skd")
    }
    assert teacher_ids(before)["big"] != teacher_ids(after)["big"]
    assert teacher_ids(before)["wrn_16_2"] == teacher_ids(after)["wrn_16_2"]


def test_a_teachers_name_is_not_part_of_an_identity(expanded: Callable[..., Expansion]) -> None:
    renamed = yaml.safe_dump(SHEET).replace("big", "large")
    before, after = expanded(), expanded(text=renamed)
    assert set(run_ids(before).values()) == set(run_ids(after).values())


def test_an_added_seed_keeps_the_old_runs(expanded: Callable[..., Expansion]) -> None:
    before, after = run_ids(expanded()), run_ids(expanded(put("seeds", 3)))
    assert before.items() < after.items()
    assert len(set(after.values())) == len(after)


def test_added_methods_and_pairs_keep_the_old_runs(expanded: Callable[..., Expansion]) -> None:
    added = {"teacher": "wrn_16_2", "student": "resnet14"}
    more = expanded(
        put("methods", [*SHEET["methods"], "skd+kd"]), lambda s: s["pairs"].append(added)
    )
    assert run_ids(expanded()).items() < run_ids(more).items()


def test_a_students_recipe_changes_that_student_alone(expanded: Callable[..., Expansion]) -> None:
    changes = {"resnet14": {"learning_rate": 0.01}}
    before, after = expanded(), expanded(put("student_recipes", changes))
    assert cells_that_differ(before, after) == {
        "resnet14/student",
        "big--resnet14/kd",
        "big--resnet14/skd",
    }
    assert teacher_ids(before) == teacher_ids(after)


def test_a_methods_recipe_changes_that_method_alone(expanded: Callable[..., Expansion]) -> None:
    own = {"name": "kd", "recipe": {"batch_size": 32}}
    before, after = expanded(), expanded(put("methods", 1, own))
    assert cells_that_differ(before, after) == {
        "big--resnet8/kd",
        "wrn_16_2--resnet8/kd",
        "big--resnet14/kd",
    }
    assert teacher_ids(before) == teacher_ids(after)
    own_recipe = expanded(put("methods", 1, {"name": "kd", "recipe": {"batch_size": 64}}))
    assert run_ids(own_recipe) == run_ids(before)  # the recipe's own value


def test_a_recipe_is_the_studys_then_the_students_then_the_methods(
    expanded: Callable[..., Expansion],
) -> None:
    methods = [
        {"name": "student", "recipe": {"batch_size": 16}},
        {"name": "kd", "recipe": {"learning_rate": 0.3, "epochs": 6}},
        {"name": "kd-too", "like": "kd"},  # inherits the terms, not the entry's recipe
    ]
    students = {"resnet14": {"learning_rate": 0.01, "weight_decay": 0.001}}
    study = expanded(put("methods", methods), put("student_recipes", students))

    def recipe(pair: str, method: str) -> tuple[int, int, float, float]:
        resolved = study.cell(pair, method).spec.recipe
        return resolved.epochs, resolved.batch_size, resolved.learning_rate, resolved.weight_decay

    assert recipe("resnet8", "student") == (4, 16, 0.05, 5e-4)
    assert recipe("resnet14", "student") == (4, 16, 0.01, 0.001)
    assert recipe("big--resnet8", "kd") == (6, 64, 0.3, 5e-4)
    assert recipe("big--resnet14", "kd") == (6, 64, 0.3, 0.001)
    assert recipe("big--resnet14", "kd-too") == (4, 64, 0.01, 0.001)


def test_a_pairs_settings_change_that_pairs_cells_alone(
    expanded: Callable[..., Expansion],
) -> None:
    own = {"kd": {"temperature": 2.0}}
    before, after = expanded(), expanded(put("pairs", 0, "settings", own))
    # skd also has the term kd.
    assert cells_that_differ(before, after) == {"big--resnet8/kd", "big--resnet8/skd"}


def test_a_pairs_settings_do_not_split_the_student_alone(
    expanded: Callable[..., Expansion],
) -> None:
    own = {"cross_entropy": {"weight": 0.5}}
    before, after = expanded(), expanded(put("pairs", 0, "settings", own))
    assert cells_that_differ(before, after) == {"big--resnet8/kd", "big--resnet8/skd"}


def test_settings_come_from_study_then_pair_then_method(
    expanded: Callable[..., Expansion],
) -> None:
    study = expanded(
        put("settings", {"kd": {"temperature": 2.0, "weight": 0.2}}),
        put("pairs", 0, "settings", {"kd": {"temperature": 3.0}}),
        put(
            "methods",
            [
                "kd",
                {"name": "kd-hot", "like": "kd", "settings": {"kd": {"temperature": 9.0}}},
                {"name": "written", "terms": [{"term": "kd", "temperature": 5}]},
                {
                    "name": "both",
                    "terms": [{"term": "kd", "temperature": 5}],
                    "settings": {"kd": {"temperature": 9.0}},
                },
            ],
        ),
    )

    def kd(pair: str, method: str) -> tuple[float, float]:
        (term,) = [t for t in study.cell(pair, method).spec.method.terms if t.term == "kd"]
        return term.settings["temperature"], term.settings["weight"]

    assert kd("wrn_16_2--resnet8", "kd") == (2.0, 0.2)
    assert kd("big--resnet8", "kd") == (3.0, 0.2)
    assert kd("big--resnet8", "kd-hot") == (9.0, 0.2)
    assert kd("big--resnet8", "written") == (5.0, 0.2)
    assert kd("big--resnet8", "both") == (9.0, 0.2)
