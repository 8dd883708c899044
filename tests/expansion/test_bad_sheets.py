"""A bad sheet is refused, and the message names the place and what is allowed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion
from skd.study.sheet_files import StudyError
from tests.builders.sheets import IMPORT, Change, drop, put

# Bad sheets: the error names the sheet, the place, and what is allowed.
URL = "https://example.org/x.pth"


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        # Unknown keys, at each level.
        (put("recipes", {}), ["unknown key 'recipes' (did you mean 'recipe'?)", "student_recipes"]),
        (put("dataset", "splits", "test"), ["dataset", "did you mean 'split'", "train_limit"]),
        (put("recipe", "epoch", 3), ["recipe", "did you mean 'epochs'", "weight_decay"]),
        (put("teachers", "big", "trains", {}), ["teachers.big", "did you mean 'train'", "import"]),
        (put("teachers", "big", "train", "sed", 1), ["teachers.big.train", "'seed'", "recipe"]),
        (
            put("teachers", "big", "train", "recipe", {"epoch": 1}),
            ["teachers.big.train.recipe", "did you mean 'epochs'"],
        ),
        (put("teachers", "big", {"import": {"fil": "x"}}), ["teachers.big.import", "'file'"]),
        (put("pairs", 0, "setting", {}), ["pairs.0", "did you mean 'settings'", "student"]),
        (put("methods", 1, {"name": "x", "lik": "kd"}), ["methods.1", "did you mean 'like'"]),
        # Display names.
        (put("display", {"kdd": "KD"}), ["display", "'kdd'", "did you mean 'kd'", "resnet14"]),
        (put("display", {"kd": " KD"}), ["display: kd", "one line"]),
        (put("display", {"kd": ""}), ["display: kd", "one line"]),
        (put("display", {"kd": "K" * 61}), ["display: kd", "61 characters; allowed: 60"]),
        (put("display", {"kd": 1}), ["display.kd", "must be text"]),
        (put("display", {"kd": "A", "skd": "A"}), ["display: kd and skd", "the same"]),
        (put("display", {"kd": "skd"}), ["display: skd and kd", "the same"]),
        (put("tables", {"layout": "wide"}), ["tables.layout", "'methods-as-columns'", "'wide'"]),
        (put("tables", {"spread": "se"}), ["tables.spread", "'sd', 'interval' or 'none'"]),
        (put("tables", {"columns": 3}), ["tables: unknown key 'columns'", "layout, spread"]),
        # Methods of detailed figures.
        (put("figures", {"methods": ["kdd"]}), ["figures: methods", "'kdd'", "did you mean 'kd'"]),
        (put("figures", {"methods": ["kd", "kd"]}), ["figures: methods", "twice: kd"]),
        (put("figures", {"methods": []}), ["figures: methods", "is empty"]),
        (put("figures", {"method": ["kd"]}), ["figures", "did you mean 'methods'"]),
        # Augmentation and mixing.
        (put("recipe", "mixing", "mixip"), ["recipe.mixing", "none", "mixup", "cutmix"]),
        (put("recipe", "augmentation", "auto"), ["recipe.augmentation", "trivialaugment"]),
        (
            put("recipe", "mixing_alpha", 0.2),
            ["recipe: mixing_alpha", "no effect with mixing: none", "write mixing: mixup"],
        ),
        (
            put("recipe", "randaugment_magnitude", 5),
            ["recipe: randaugment_magnitude", "no effect with augmentation: standard"],
        ),
        (put("recipe", "randaugment_magnitude", 31), ["recipe.randaugment_magnitude", "30"]),
        (
            put("methods", 1, {"name": "dkd", "recipe": {"mixing": "cutmix"}}),
            [
                "dkd: mixing: cutmix is not possible",
                "the term dkd reads single images",
                "mixing: none",
            ],
        ),
        (
            put(
                "networks",
                {"own": {"wrap": "timm/x", "stages": ["a", "b"], "options": {"pretrained": True}}},
            ),
            ["networks.own.options", "pretrained cannot be set", "import a teacher"],
        ),
        (
            put("methods", 1, {"name": "kd", "settings": {"kd": {"weight_decay": 0.1}}}),
            ["kd: the term kd has no parameters", "leave out", "weight_decay"],
        ),
        (
            put("methods", 1, {"name": "skd+crd", "recipe": {"mixing": "mixup"}}),
            ["skd+crd: mixing: mixup is not possible", "the term crd reads single images"],
        ),
        (
            put("methods", 1, {"name": "mlkd_two_views", "recipe": {"mixing": "mixup"}}),
            ["mlkd_two_views: mixing: mixup", "without: [mlkd_two_views]"],
        ),
        (
            put("methods", 1, {"name": "kd", "recipe": {"mixing": "mixup", "bn_batch": 1}}),
            ["methods: kd: recipe: bn_batch 1", "mixing: mixup", "2 or more"],
        ),
        (
            put("student_recipes", {"resnet8": {"epoch": 1}}),
            ["student_recipes.resnet8", "did you mean 'epochs'"],
        ),
        (
            put("methods", 1, {"name": "kd", "recipe": {"batch": 1}}),
            ["methods: kd: recipe: ", "unknown key 'batch'", "batch_size"],
        ),
        (
            put("methods", 1, {"name": "kd", "recipe": {"batch_size": "64 images"}}),
            ["methods: kd: recipe: batch_size: ", "'64 images'"],
        ),
        (put("methods", 1, {"name": "kd", "recipe": 3}), ["methods.1.recipe", "mapping", "3"]),
        (
            put("settings", {"kd": {"temprature": 2}}),
            ["methods: ", "kd: unknown key 'temprature' (did you mean 'temperature'?)", "weight"],
        ),
        (
            lambda s: s.update(methods=["student"], settings={"kd": {"temprature": 2}}),
            ["methods: student", "did you mean 'temperature'"],  # even of a term not in use
        ),
        (
            put("methods", 1, {"name": "x", "like": "kd", "settings": {"simplifier": {}}}),
            ["methods: x", "'simplifier'", "kd"],
        ),
        (put("methods", 1, {"name": "x", "terms": []}), ["methods.1.terms", "at least 1"]),
        (put("settings", {"simplifier": {"head": 2}}), ["simplifier", "did you mean 'heads'"]),
        # Unknown names.
        (put("dataset", "name", "digit"), ["dataset.name", "did you mean 'digits'", "cifar100"]),
        (put("dataset", "split", "val"), ["dataset.split", "'test' or 'validation'", "'val'"]),
        (
            put("teachers", "big", "network", "resnet21"),
            ["teachers.big: network", "unknown network 'resnet21'", "allowed:", "wrn_16_2"],
        ),
        (put("pairs", 0, "student", "resnet9"), ["pairs: student", "did you mean 'resnet8'"]),
        (put("pairs", 0, "teacher", "bigg"), ["pairs", "teacher 'bigg' (did you mean 'big'?)"]),
        (put("methods", 1, "skdd"), ["methods: skdd", "did you mean 'skd'", "student"]),
        (put("methods", 1, "skd+kdd"), ["methods: skd+kdd", "'kdd' (did you mean 'kd'?)"]),
        (put("methods", 1, {"name": "x", "like": "kdd"}), ["methods: x", "did you mean 'kd'"]),
        (
            put("methods", 1, {"name": "x", "terms": [{"term": "kdd"}]}),
            ["methods: x", "unknown term 'kdd' (did you mean 'kd'?)", "cross_entropy"],
        ),
        (
            put("settings", {"kdd": {}}),
            ["settings for unknown term 'kdd'", "did you mean 'kd'", "simplifier"],
        ),
        (
            put("pairs", 0, "settings", {"kdd": {}}),
            ["settings for unknown term 'kdd'", "did you mean 'kd'"],
        ),
        (put("student_recipes", {"resnet20": {}}), ["student_recipes", "resnet8, resnet14"]),
        # Ill-typed and missing values.
        (put("recipe", "epochs", "many"), ["recipe.epochs", "whole number", "'many'"]),
        (put("recipe", "epochs", 0), ["recipe.epochs", "greater than 0"]),
        (put("recipe", "milestones", [3, 2]), ["recipe", "must increase", "[3, 2]"]),
        (put("recipe", "weight_decay", float("nan")), ["recipe.weight_decay", "nan"]),
        (put("recipe", "learning_rate", float("inf")), ["recipe", "learning_rate"]),
        (put("settings", {"kd": {"temperature": -1}}), ["term kd", "temperature", "-1"]),
        (put("settings", {"kd": {"temperature": float("inf")}}), ["term kd", "temperature"]),
        (put("settings", {"kd": {"weight": float("nan")}}), ["term kd", "weight", "nan"]),
        (put("settings", {"simplifier": {"axis": "x"}}), ["simplifier", "axis", "'classes'"]),
        (put("seeds", [0, -1]), ["seeds.1", "-1"]),
        (put("seeds", True), ["seeds"]),
        (put("teachers", "big", "train", {}), ["teachers.big.train.seed", "required"]),
        (drop("title"), ["title", "required"]),
        (drop("pairs", 0, "student"), ["pairs.0.student", "required"]),
        # Duplicate or empty entries.
        (put("methods", ["kd", "kd"]), ["methods: named twice: kd"]),
        (put("seeds", [1, 2, 1]), ["seeds: named twice: 1"]),
        (lambda s: s["pairs"].append(s["pairs"][0]), ["pairs: named twice", "big", "resnet8"]),
        (put("methods", []), ["methods", "at least 1"]),
        (put("pairs", []), ["pairs", "at least 1"]),
        (put("seeds", []), ["seeds", "from 1 to"]),
        (put("seeds", 0), ["seeds", "from 1 to"]),
        # Methods that make no sense.
        (
            put("methods", 1, {"name": "x", "like": "kd", "terms": [{"term": "kd"}]}),
            ["methods: x", "'terms' or 'like'"],
        ),
        (
            put("methods", 1, {"name": "x", "like": "kd", "simplifier": {}}),
            ["methods: x", "teacher: simplified", "leave the simplifier out"],
        ),
        (
            put("methods", 1, {"name": "x", "terms": [{"term": "kd", "teacher": "simple"}]}),
            ["methods: x", "term kd: teacher", "unknown transformation 'simple'", "simplified"],
        ),
        (
            put("methods", 1, {"name": "x", "terms": [{"term": "crd", "teacher": "simplified"}]}),
            ["methods: x", "term crd reads no teacher logits", "'teacher: simplified'"],
        ),
        (
            put("methods", 1, {"name": "x", "terms": [{"term": "cross_entropy", "weight": 0}]}),
            ["methods: x", "every term has weight 0"],
        ),
        # Teachers.
        (put("teachers", "big", {"network": "resnet20"}), ["teachers.big", "either train"]),
        (
            put("teachers", "big", {"train": {"seed": 0}, "import": {"file": "x"}}),
            ["teachers.big", "either train"],
        ),
        (put("teachers", "big", {"import": {"url": URL}}), ["teachers.big.import", "sha256"]),
        (put("teachers", "big", {"import": {}}), ["teachers.big.import", "either file or url"]),
        (
            put("teachers", "big", {"import": {"file": "x", "url": URL, "sha256": "0" * 64}}),
            ["teachers.big.import", "either file or url"],
        ),
        (
            put("teachers", "big", {"import": {"file": "x", "sha256": "ABC"}}),
            ["teachers.big.import.sha256", "'ABC'"],
        ),
        # Names that could not be a file's.
        (put("teachers", "a/b", {"train": {"seed": 0}}), ["teachers", "'a/b'", "letters"]),
        (put("teachers", "a--b", {"train": {"seed": 0}}), ["teachers", "'a--b'", "letters"]),
        (put("methods", 1, {"name": "a/b", "like": "kd"}), ["methods.1.name", "'a/b'", "letters"]),
        (put("methods", 1, {"name": "", "like": "kd"}), ["methods.1.name", "letters"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_bad_sheet_is_refused_and_the_place_is_named(
    expanded: Callable[..., Expansion], change: Change, fragments: list[str]
) -> None:
    with pytest.raises(StudyError) as caught:
        expanded(change)
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert message.count("mine.yaml") == message.count("\n") + 1  # every line names the place
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_an_imported_teacher_is_refused_with_a_validation_split(
    expanded: Callable[..., Expansion],
) -> None:
    with pytest.raises(StudyError, match=r"teachers\.big: .* seen_validation: true"):
        expanded(IMPORT, put("dataset", "split", "validation"))
    assert expanded(put("dataset", "split", "validation")).dataset.split == "validation"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("title: [", "not valid YAML"),
        ("", "a sheet is a mapping of keys"),
        ("title: a\ntitle: b\n", "the key 'title' is written twice"),
        ("recipe: {epochs: 1, epochs: 2}\n", "the key 'epochs' is written twice"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused(expanded: Callable[..., Expansion], text: str, fragment: str) -> None:
    with pytest.raises(StudyError, match=r"mine\.yaml") as caught:
        expanded(text=text)
    assert fragment in str(caught.value)


def test_a_sheet_that_is_not_utf8_is_refused(
    write: Callable[..., Path],
) -> None:
    write().write_bytes(b"title: \xff\n")
    with pytest.raises(StudyError, match=r"mine\.yaml"):
        expand_study("mine")


def test_an_unknown_cell_or_teacher_is_refused_with_the_near_match(
    expanded: Callable[..., Expansion],
) -> None:
    study = expanded()
    with pytest.raises(StudyError, match=r"no cell 'big--resnet8/kdd' \(did you mean 'big--resn"):
        study.cell("big--resnet8", "kdd")
    with pytest.raises(StudyError, match=r"no teacher 'bigg' \(did you mean 'big'\?\)"):
        study.teacher("bigg")


@pytest.mark.parametrize("name", ["runs", "teachers", "my study", "a--b"])
def test_a_study_cannot_take_a_name_that_its_results_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"{name}.yaml").write_text("title: x")
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    with pytest.raises(StudyError, match=r"named|name"):
        expand_study(name)
