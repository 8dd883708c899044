"""Study sheets: what they expand to, what an edit retrains, and how bad ones are refused."""

import copy
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion, expansion_path, load_expansion, write_expansion
from skd.study.sheet_files import STUDIES_FOLDER, StudyError, find_sheet, study_names

SHEET: dict[str, Any] = {
    "title": "A test",
    "dataset": {"name": "synthetic"},
    "recipe": {"epochs": 4, "milestones": [2, 3]},
    "teachers": {
        "big": {"network": "resnet20", "train": {"seed": 0}},
        "wrn_16_2": {"train": {"seed": 0}},
    },
    "pairs": [
        {"teacher": "big", "student": "resnet8"},
        {"teacher": "wrn_16_2", "student": "resnet8"},
        {"teacher": "big", "student": "resnet14"},
    ],
    "methods": ["student", "kd", "skd"],
    "seeds": 2,
}


Change = Callable[[dict[str, Any]], Any]
Ids = dict[tuple[str, int], str]


def put(*path: Any) -> Change:
    """Return a change of a sheet: the last item becomes the value at the path before it."""
    *where, last, value = path

    def change(sheet: dict[str, Any]) -> None:
        for key in where:
            sheet = sheet[key]
        sheet[last] = copy.deepcopy(value)

    return change


def drop(*path: Any) -> Change:
    *where, last = path

    def change(sheet: dict[str, Any]) -> None:
        for key in where:
            sheet = sheet[key]
        del sheet[last]

    return change


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a sheet, by text or as changes of SHEET, to where studies are looked for."""
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))

    def write_sheet(*changes: Change, text: str | None = None) -> Path:
        sheet = copy.deepcopy(SHEET)
        for change in changes:
            change(sheet)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(sheet, sort_keys=False) if text is None else text)
        return path

    return write_sheet


@pytest.fixture
def expanded(write: Callable[..., Path]) -> Callable[..., Expansion]:
    def expand_sheet(*changes: Change, text: str | None = None) -> Expansion:
        write(*changes, text=text)
        return expand_study("mine")

    return expand_sheet


def run_ids(expansion: Expansion) -> Ids:
    return {(c.key, seed): run for c in expansion.cells for seed, run in c.runs.items()}


def teacher_ids(expansion: Expansion) -> dict[str, str]:
    return {node.name: node.id for node in expansion.teachers}


def cells_that_differ(first: Expansion, second: Expansion) -> set[str]:
    one, two = run_ids(first), run_ids(second)
    assert one.keys() == two.keys()
    return {key for key, seed in one if one[key, seed] != two[key, seed]}


# What sheets expand to.


def test_the_demo_expands_to_its_cells_and_shares_the_student_alone() -> None:
    demo = expand_study("demo")
    first, second = (teacher for teacher, _ in demo.pairs)
    pairs = [f"{first}--resnet8", f"{second}--resnet8"]
    few = ["kd", "skd", "skd+kd"]  # the second pair goes without the others
    taught = {f"{pairs[1]}/{method}" for method in few}
    taught |= {f"{pairs[0]}/{method}" for method in demo.methods if method != "student"}
    assert {cell.key for cell in demo.cells} == {"resnet8/student", *taught}
    assert len(set(run_ids(demo).values())) == len(run_ids(demo)) == 39
    assert demo.methods_of(first, "resnet8") == list(demo.methods)
    assert demo.methods_of(second, "resnet8") == ["student", *few]
    alone = demo.cell_of(first, "resnet8", "student")
    assert alone is demo.cell_of(second, "resnet8", "student")
    assert alone.teacher is None
    assert demo.cell_of(second, "resnet8", "kd").key == f"{second}--resnet8/kd"


def test_cells_name_the_identities_of_their_specs(expanded: Callable[..., Expansion]) -> None:
    study = expanded()
    for cell in study.cells:
        assert cell.runs == {seed: cell.run(seed).identity for seed in (0, 1)}
        assert cell.spec.network == cell.student
        teacher = cell.spec.teacher
        assert (teacher and teacher.identity) == (cell.teacher and study.teacher(cell.teacher).id)
    assert len({cell.digest for cell in study.cells}) == len(study.cells)


@pytest.mark.parametrize("path", sorted(STUDIES_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sheet_expands(path: Path) -> None:
    study = expand_study(path.stem)
    assert study.study == path.stem
    assert {cell.method for cell in study.cells} == set(study.methods)


def test_a_number_of_seeds_counts_from_zero(expanded: Callable[..., Expansion]) -> None:
    assert expanded(put("seeds", 3)).seeds == (0, 1, 2)
    assert expanded(put("seeds", [5, 3])).seeds == (5, 3)


def test_ones_own_sheets_come_before_the_shipped_ones(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    assert find_sheet("demo").parent == STUDIES_FOLDER
    own = write().rename(tmp_path / "demo.yaml")
    assert find_sheet("demo") == own
    write()
    assert {"mine", "demo"} <= set(study_names())
    assert study_names().count("demo") == 1
    with pytest.raises(StudyError, match=r"unknown study 'mime' \(did you mean 'mine'\?\)"):
        find_sheet("mime")


# What an edit changes.


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


def test_a_teachers_name_is_no_part_of_an_identity(expanded: Callable[..., Expansion]) -> None:
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
    said = expanded(put("methods", 1, {"name": "kd", "recipe": {"batch_size": 64}}))
    assert run_ids(said) == run_ids(before)  # what the recipe says anyway


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
        found = study.cell(pair, method).spec.recipe
        return found.epochs, found.batch_size, found.learning_rate, found.weight_decay

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
    # skd's term is kd too.
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


# Imported teachers.

IMPORT = put("teachers", "big", {"network": "resnet20", "import": {"file": "$SKD_T/big.pth"}})


def test_a_file_not_at_hand_expands_and_is_hashed_once_it_is(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    dry = expanded(IMPORT).teacher("big")
    assert dry.source.file == tmp_path / "big.pth"
    (tmp_path / "big.pth").write_bytes(b"weights")
    found = expanded(IMPORT).teacher("big")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert found.spec.sha256 == sha256 != dry.spec.sha256
    assert found.id != dry.id
    pinned = {"network": "resnet20", "import": {"url": "https://example.org/x", "sha256": sha256}}
    elsewhere = expanded(put("teachers", "big", pinned)).teacher("big")
    assert elsewhere.origin != found.origin
    assert elsewhere.id == found.id


def test_a_pinned_hash_is_taken_at_its_word(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    pinned = put("teachers", "big", "import", "sha256", "a" * 64)
    dry = expanded(IMPORT, pinned).teacher("big")
    (tmp_path / "big.pth").write_bytes(b"other weights")
    assert expanded(IMPORT, pinned).teacher("big").id == dry.id
    assert dry.spec.sha256 == "a" * 64


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
        (put("recipe", "milestones", [3, 2]), ["recipe", "must rise", "[3, 2]"]),
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
        # Twice, or nothing at all.
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
        (put("methods", 1, {"name": "x", "like": "kd", "simplifier": {}}), ["methods: x", "both"]),
        (
            put("methods", 1, {"name": "x", "terms": [{"term": "kd", "teacher": "simplified"}]}),
            ["methods: x", "simplifier", "both"],
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
    assert message.count("mine.yaml") == message.count("\n") + 1  # every line says where
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_an_imported_teacher_is_refused_with_a_validation_split(
    expanded: Callable[..., Expansion],
) -> None:
    with pytest.raises(StudyError, match=r"teachers\.big: .* seen_validation: true"):
        expanded(IMPORT, put("dataset", "split", "validation"))
    assert expanded(put("dataset", "split", "validation")).dataset.split == "validation"


def test_that_an_imported_teacher_has_seen_the_validation_images_is_stated_and_shown(
    expanded: Callable[..., Expansion],
) -> None:
    stated = put("teachers", "big", "import", "seen_validation", True)
    told = expanded(IMPORT, put("dataset", "split", "validation"), stated).teacher("big")
    plain = expanded(IMPORT).teacher("big")
    assert (told.leaks, plain.leaks) == (True, False)
    assert told.id == plain.id  # it is the same teacher


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


# The expansion as a file.


def no_process(*_: Any, **__: Any) -> None:
    raise AssertionError("a process was started")


def test_an_expansion_is_read_back_as_it_was(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    study = expanded(IMPORT)
    write_expansion(study, tmp_path / "results")
    monkeypatch.setattr("skd.study.expansion.subprocess", SimpleNamespace(run=no_process))
    assert load_expansion("mine", tmp_path / "results") == study


def test_an_expansion_is_made_once_and_again_when_something_changed(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, started = tmp_path / "results", []

    # The first one is made in a process as it should be, the others, to be quick, in this one.
    def counted(command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        if len(started) == 1:
            return subprocess.run(command, **named)
        name, folder = command[command.index("expand") + 1], command[-1]
        write_expansion(expand_study(name), Path(folder))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("skd.study.expansion.subprocess", SimpleNamespace(run=counted))
    monkeypatch.setenv("SKD_T", str(tmp_path))

    def load(times: int) -> Expansion:
        study = load_expansion("mine", results)
        assert len(started) == times
        return study

    write(IMPORT)
    first = load(1)
    stamp = expansion_path(results, "mine").stat().st_mtime_ns
    assert load(1) == first
    assert expansion_path(results, "mine").stat().st_mtime_ns == stamp
    write(IMPORT, put("seeds", 3))
    assert load(2).seeds == (0, 1, 2)
    (tmp_path / "big.pth").write_bytes(b"weights")  # the checkpoint arrives
    assert load(3).teacher("big").id != first.teacher("big").id
    expansion_path(results, "mine").write_text('{"sources": ')
    load(4)
    load(4)


def test_an_unpinned_checkpoint_that_is_gone_is_known_by_the_hash_it_had(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint, results = tmp_path / "teacher.pth", tmp_path / "results"
    checkpoint.write_bytes(b"weights")
    write(put("teachers", "big", {"network": "resnet20", "import": {"file": str(checkpoint)}}))
    before = expand_study("mine", results)
    write_expansion(before, results)
    checkpoint.unlink()
    assert teacher_ids(expand_study("mine", results)) == teacher_ids(before)
    assert teacher_ids(expand_study("mine", tmp_path / "others")) != teacher_ids(before)


@pytest.mark.parametrize("name", ["runs", "teachers", "my study", "a--b"])
def test_a_study_cannot_take_a_name_that_its_results_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"{name}.yaml").write_text("title: x")
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    with pytest.raises(StudyError, match=r"named|name"):
        expand_study(name)
