"""Settings that cannot take effect, and numbers that no training could use, in a study's sheet."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from skd.common.frozen import canonical
from skd.expansion.expand import expand_sheet
from skd.study.expansion import Expansion
from skd.study.sheet import Sheet, StudyError, read_sheet
from skd.study.spec import DatasetSpec, Recipe, RunSpec
from tests.builders import tiny
from tests.builders.commands import Skd

DKD = {"methods": ["student", "dkd"]}
PHOTOS = {"path": "x", "classes": 10, "train_images": 100, "test_images": 10, "size": 32}


def expanded(**changes: Any) -> Expansion:
    """Expand the tiny sheet as it is, with some keys replaced."""
    sheet = {**copy.deepcopy(tiny.SHEET), **changes}
    return expand_sheet(Sheet.model_validate(sheet), study="mine")


def teacher(**train: Any) -> dict[str, Any]:
    return {"teachers": {"teacher": {"network": "resnet8", "train": {"seed": 0, **train}}}}


def method(**entry: Any) -> dict[str, Any]:
    return {"methods": ["student", {"name": "own", **entry}]}


# Settings that cannot take effect.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"recipe": {"epochs": 30}},
            r"recipe: milestones 150, 180, 210 \(the default\): training ends with epoch 30, "
            r"before they take effect; write milestones: \[19, 22, 26\], or milestones: \[\] for",
        ),
        ({"recipe": {"epochs": 200}}, r"milestones 210 \(the default\)"),
        ({"recipe": {"epochs": 1}}, r"write milestones: \[\] for a constant"),
        (
            {"recipe": {"epochs": 30, "milestones": [9, 30]}},
            r"recipe: milestones 30: training ends",
        ),
        (
            teacher(recipe={"epochs": 2}),
            r"teachers.teacher.train.recipe: milestones 2 \(from recipe\): training ends",
        ),
        (
            {"student_recipes": {"resnet8": {"epochs": 2}}},
            r"student_recipes.resnet8: milestones 2 \(from recipe\)",
        ),
        (
            method(like="kd", recipe={"epochs": 2}),
            r"methods: own: recipe: milestones 2 \(from recipe\)",
        ),
        (
            {"recipe": {"epochs": 3, "milestones": [2], "batch_size": 10**12}},
            "batch_size 1000000000000 .from recipe.: there are only 80 training images; write",
        ),
        (
            {"dataset": {"name": "digits", "train_limit": 40}},
            r"batch_size 64 \(the default\): there are only 40 training images",
        ),
        (
            {"recipe": {"epochs": 3, "milestones": [], "bn_batch": 65}},
            "bn_batch 65 .from recipe.: a batch has only 64 images",
        ),
        (
            {"recipe": {"epochs": 3, "milestones": [], "nesterov": True, "momentum": 0}},
            "nesterov: true needs a momentum greater than 0",
        ),
        (
            {"settings": {"simplifier": {"group": 65}}},
            "teacher--resnet8: skd: simplifier: group 65: a batch has only 64 images",
        ),
        (
            DKD,
            r"dkd: term dkd: warmup_epochs 20 \(the default\): training ends with epoch 3, before "
            r"this setting has taken full effect; write for example settings: "
            r"\{dkd: \{warmup_epochs: 1\}\}, or 20 to",
        ),
        ({"methods": ["ctkd"]}, r"curriculum_epochs 10 \(the default\)"),
        (
            {
                "pairs": [{"teacher": "teacher", "student": "resnet8", "without": ["kd"]}],
                "methods": ["kd"],
            },
            "without: no method is left; leave the pair out",
        ),
    ],
)
def test_what_cannot_take_effect_is_refused_with_what_to_write(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        expanded(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {**DKD, "settings": {"dkd": {"warmup_epochs": 20}}},
        {
            **DKD,
            "pairs": [
                {
                    "teacher": "teacher",
                    "student": "resnet8",
                    "settings": {"dkd": {"warmup_epochs": 20}},
                }
            ],
        },
        method(like="dkd", settings={"dkd": {"warmup_epochs": 20}}),
        method(terms=[{"term": "dkd", "warmup_epochs": 20}]),
    ],
    ids=["study", "pair", "method", "term"],
)
def test_a_warm_up_longer_than_the_training_is_noted_where_it_is_written(
    changes: dict[str, Any],
) -> None:
    (note,) = expanded(**changes).notes
    assert note.endswith(
        "term dkd: warmup_epochs 20: training ends with epoch 3, before this "
        "setting has taken full effect"
    )


def test_settings_and_recipes_that_change_nothing_are_noted() -> None:
    changes = {"settings": {"crd": {"width": 8}, "kd": {"temperature": 2}}}
    changes["student_recipes"] = {"resnet8": {"epochs": 3}}
    assert expanded(**changes).notes == (
        "student_recipes: resnet8: its recipe is the study's",
        "settings: crd: no method has such a part",
    )
    assert expanded().notes == ()


def test_notes_are_reported_by_expand_and_plan(
    skd: Skd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sheet = {**tiny.SHEET, "settings": {"crd": {"width": 8}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(sheet))  # JSON is YAML
    note = "note: settings: crd: no method has such a part"
    status, _, error = skd("expand", "mine")
    assert (status, note in error.splitlines()) == (0, True)
    status, out, _ = skd("plan", "mine")
    assert (status, note in out.splitlines()) == (0, True)


def test_stored_specs_are_read_whatever_a_sheet_may_say() -> None:
    cell = tiny.study().cell("resnet8", "student")
    for recipe in (Recipe(epochs=10**6), Recipe(epochs=30), Recipe(epochs=2, batch_size=10**12)):
        old = cell.spec.model_copy(update={"recipe": recipe, "seed": 2**64})
        assert RunSpec.restore(canonical(old)).identity == old.identity


# Numbers out of bounds.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"seeds": [2**64]},
            r"seeds: seed 18446744073709551616: allowed: 0 to 4294967295 \(32 bits",
        ),
        (teacher(seed=2**32), "teachers.teacher.train: seed 4294967296: allowed: 0 to"),
        (
            {"recipe": {"epochs": 10**30, "milestones": [2]}},
            "epochs 1000.*: allowed: up to 100,",
        ),
        ({"recipe": {"epochs": 3, "learning_rate": 1e300}}, r"learning_rate 1e\+300: .*float32"),
        ({"recipe": {"epochs": 3, "weight_decay": 1e-300}}, "weight_decay 1e-300: .*float32"),
        ({"recipe": {"epochs": 3, "momentum": 1}}, "momentum 1: must be less than 1"),
        (
            {"settings": {"kd": {"weight": 1e30}}},
            r"term kd: weight 1e\+30: allowed: 1e-12 to ",
        ),
        ({"settings": {"kd": {"temperature": 1e-300}}}, "term kd: temperature 1e-300"),
        ({"settings": {"crd": {"width": 10**9}}}, "term crd: width 1000000000: allowed: up to"),
        ({"settings": {"mlkd": {"temperatures": [1, 1e99]}}}, r"mlkd: temperatures\[1\] 1e\+99"),
        ({"settings": {"simplifier": {"width": 10**9}}}, "simplifier: width 1000000000"),
        (method(terms=[{"term": "kd", "weight": 1e30}]), r"own: term kd: weight 1e\+30"),
    ],
)
def test_numbers_out_of_bounds_are_refused_with_the_reason(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        expanded(**changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 10**6}, "size 1000000: allowed: 8 to 1024 pixels"),
        ({"size": 1}, "size 1: allowed: 8 to 1024 pixels"),
        ({"classes": 10**9, "train_images": 10**9}, "classes 1000000000: allowed: 2 to 65536"),
        ({"classes": 101}, "classes 101: allowed: 2 to 100"),
        ({"train_images": 10**12}, "train_images 1000000000000: allowed: up to 100,000,000"),
        ({"test_images": 10**12}, "test_images 1000000000000: allowed: up to 100,000,000"),
    ],
)
def test_photos_out_of_bounds_are_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(StudyError, match=f"dataset: folder: {words}"):
        expanded(dataset={"name": "imagefolder", "folder": {**PHOTOS, **change}})
    assert DatasetSpec.restore({"name": "imagefolder", "folder": {**PHOTOS, **change}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 10**9}, "seeds: 1000000000 seeds: write a number of seeds from 1 to 10,000"),
        ({"seeds": 10**400}, "not valid YAML: .*: an integer with more than 100 digits"),
        ({"seeds": 10**80}, "seeds: 1000.*… seeds: write a number"),
        ({"seeds": -1}, "seeds: -1 seeds: write a number of seeds from 1"),
        ({"seeds": []}, "seeds: 0 seeds: write"),
        ({"seeds": [0, True]}, "seeds: true and false are not allowed in it"),
        ({"seeds": "two"}, r"seeds: must be a list, \[a, b\], got 'two'"),
        ({"seeds": [0.5]}, "seeds.0: must be a whole number, got 0.5"),
        ({"pairs": []}, r"pairs: must have at least 1 item, got \[\]"),
        ({"methods": []}, "methods: must have at least 1 item"),
        ({"methods": None}, r"methods: must be a list, \[a, b\], got nothing"),
        (
            {"teachers": {"a b": teacher()["teachers"]["teacher"]}},
            "teachers.a b: 'a b': names consist",
        ),
        ({"teachers": []}, r"teachers: must be a mapping, \{key: value\}, got \[\]"),
        ({"title": 3}, "title: must be text; put it in quotes, got 3"),
        (
            {"title": "\x1b[31mred"},
            "not valid YAML: .* character U.001B is not printable",
        ),
        (
            {"description": "\x07"},
            "not valid YAML: .* character U.0007 is not printable",
        ),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: must be greater than 0, got 0"),
        ({"recipe": {"epochs": "9" * 5000}}, "recipe.epochs: is too large, got '999.*…"),
        ({"recipe": {"nesterov": "maybe"}}, "recipe.nesterov: must be true or false, got 'maybe'"),
        ({"recipe": {"momentum": -1}}, "recipe.momentum: must be at least 0, got -1"),
        ({"recipe": {"momentum": {}}}, r"recipe.momentum: must be a number, got \{\}"),
        (
            {"recipe": {"last_batch": "no"}},
            "recipe.last_batch: allowed: 'keep' or 'drop', got",
        ),
    ],
)
def test_values_are_refused_in_the_words_of_sheets(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**tiny.SHEET, **changes}))  # JSON is YAML
    with pytest.raises(StudyError, match=f"^mine.yaml: {words}"):
        read_sheet(path)
