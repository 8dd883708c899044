"""Published values: shipped ones, added ones, and lines with mistakes."""

import csv
import shutil
from pathlib import Path

import pytest

from skd.common.frozen import canonical
from skd.models import network_names
from skd.study.published import (
    COMMON_RECIPES,
    PUBLISHED_FOLDER,
    SKD_FILE,
    PublishedError,
    differences_from_published,
    published_values,
    recipe_changes,
)
from skd.study.spec import DatasetSpec, Recipe

CIFAR, IMAGENET = DatasetSpec(name="cifar100"), DatasetSpec(name="imagenet")
HEADER = "teacher,student,method,top1,top5,reported_epoch,n_runs,sd,source"
KEY = ("resnet56", "resnet20", "skd")
LINE = 'resnet56,resnet20,skd,71.25,92.5,unstated,3,0.21,"Table 1, page 2"'


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the folder as shipped."""
    return Path(shutil.copytree(PUBLISHED_FOLDER, tmp_path / "published"))


def add(folder: Path, *lines: str, name: str = SKD_FILE) -> int:
    """Add lines to a file; return the number of the first."""
    text = (folder / name).read_text()
    (folder / name).write_text(text + "".join(f"{line}\n" for line in lines))
    return len(text.splitlines()) + 1


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dataset", [CIFAR, IMAGENET], ids=lambda dataset: dataset.name)
def test_the_values_are_those_of_the_reference_data(dataset, shared_dir):
    rows = rows_of(shared_dir / "reference" / f"published_{dataset.name}.csv")
    values = published_values(dataset)
    methods = {row["method"] for row in rows}  # other methods were added from other sources
    assert len(rows) == sum(value.method in methods for value in values.values())
    for row in rows:
        value = values[row["teacher"], row["student"], row["method"]]
        assert value.top1 == float(row["top1"])
        assert value.top5 == (float(row["top5"]) if row.get("top5") else None)
        assert value.reported_epoch == row.get("reported_epoch", "unstated")
        assert value.n_runs == (int(row["n_runs"]) if row.get("n_runs") else None)
        assert (value.sd, value.source) == (None, row["source"])


def test_what_is_shipped_is_whole():
    values = published_values(CIFAR)
    assert len(values) == 103
    assert len(published_values(IMAGENET)) == 12
    crd = values["resnet56", "resnet20", "crd"]
    assert (crd.top1, crd.reported_epoch, crd.n_runs) == (71.16, "last", None)
    dkd = values["resnet56", "resnet20", "dkd"]
    assert (dkd.top1, dkd.reported_epoch, dkd.n_runs) == (71.97, "best", 5)
    assert {name for teacher, student, _ in values for name in (teacher, student)} <= set(
        network_names()
    )


@pytest.mark.parametrize("dataset", [CIFAR, IMAGENET], ids=lambda dataset: dataset.name)
def test_skds_own_file_ships_without_a_number(dataset):
    assert not [key for key in published_values(dataset) if "skd" in key[2]]
    lines = [
        line for line in (PUBLISHED_FOLDER / SKD_FILE).read_text().splitlines() if line[:1] != "#"
    ]
    assert lines == [f"dataset,{HEADER}"]


def test_a_number_typed_into_skds_file_takes_part(copy):
    add(copy, f"cifar100,{LINE}", "", "# a remark", f"imagenet,{LINE.replace('71.25', '60')}")
    before, after = published_values(CIFAR), published_values(CIFAR, copy)
    assert after.keys() - before.keys() == {KEY}
    value = after[KEY]
    assert (value.top1, value.top5, value.n_runs, value.sd) == (71.25, 92.5, 3, 0.21)
    assert (value.reported_epoch, value.source) == ("unstated", "Table 1, page 2")
    assert published_values(IMAGENET, copy)[KEY].top1 == 60
    assert published_values(DatasetSpec(name="digits"), copy) == {}


def test_spaces_an_editors_mark_and_empty_fields_do_no_harm(copy):
    own = copy / SKD_FILE
    own.write_text(own.read_text() + " cifar100 , resnet56,resnet20,skd , 71.2,,last,,, Table 1\n")
    own.write_bytes(b"\xef\xbb\xbf" + own.read_bytes().replace(b"\n", b"\r\n"))
    value = published_values(CIFAR, copy)[KEY]
    assert (value.top1, value.top5, value.n_runs, value.sd) == (71.2, None, None, None)
    assert (value.reported_epoch, value.source) == ("last", "Table 1")


def refused(folder: Path, dataset: DatasetSpec = CIFAR) -> str:
    with pytest.raises(PublishedError) as error:
        published_values(dataset, folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("71.25", "7O.1"), "top1"),
        (("71.25", ""), "top1"),
        (("71.25", "nan"), "top1"),
        (("71.25", "inf"), "top1"),
        (("71.25", "-71.25"), "top1"),
        (("71.25", "0"), "top1"),
        (("71.25", "100.1"), "top1"),
        (("92.5", "nan"), "top5"),
        (("92.5", "192.5"), "top5"),
        (("unstated", "final"), "reported_epoch"),
        (("unstated", ""), "reported_epoch"),
        ((",3,", ",0,"), "n_runs"),
        ((",3,", ",2.5,"), "n_runs"),
        (("0.21", "-0.21"), "sd"),
        (("0.21", "nan"), "sd"),
        (("0.21", "inf"), "sd"),
        (("resnet56", ""), "teacher"),
        (("resnet20", " "), "student"),
        ((",skd,", ",,"), "method"),
        (('"Table 1, page 2"', ""), "source"),
    ],
)
def test_a_mistake_is_reported_with_file_line_and_field(copy, change, field):
    good = LINE.replace("resnet20", "resnet32")
    bad = LINE.replace(*change)
    line = add(copy, f"cifar100,{good}", "# a remark", "", f"cifar100,{bad}") + 3
    assert refused(copy).startswith(f"{SKD_FILE}, line {line}: {field}: ")
    assert published_values(IMAGENET, copy) == published_values(IMAGENET)  # in none of its lines


def test_mistakes_of_a_data_sets_own_file_are_reported_too(copy):
    line = add(copy, "resnet56,resnet20,new,seventy,last,,a paper", name="cifar100.csv")
    assert refused(copy).startswith(f"cifar100.csv, line {line}: top1: ")


@pytest.mark.parametrize("name", ["", " ", "CIFAR-100", "cifar10", f'"{LINE[:8]}"'])
def test_a_line_of_no_data_set_is_refused(copy, name):
    line = add(copy, f"{name},{LINE}")
    expected = f"{SKD_FILE}, line {line}: dataset: allowed: cifar100, imagenet"
    assert refused(copy) == refused(copy, IMAGENET) == expected


def test_a_line_written_with_semicolons_is_refused(copy):
    line = add(copy, "cifar100;resnet56;resnet20;skd;71.25;;last;;;Table 1")
    assert refused(copy).startswith(f"{SKD_FILE}, line {line}: dataset: allowed:")


def test_too_many_and_too_few_values_are_refused(copy):
    line = add(copy, f"cifar100,{LINE},and more")
    assert refused(copy) == f"{SKD_FILE}, line {line}: more values than the header has names"
    shutil.copy(PUBLISHED_FOLDER / SKD_FILE, copy / SKD_FILE)
    add(copy, "cifar100,resnet56,resnet20,skd,71.25,,last")
    assert refused(copy).startswith(f"{SKD_FILE}, line {line}: source: ")


def test_an_unknown_column_is_refused(copy):
    text = (copy / SKD_FILE).read_text().replace("n_runs,sd,source", "runs,sd,source")
    (copy / SKD_FILE).write_text(f"{text}cifar100,{LINE}\n")
    assert "runs: Extra inputs" in refused(copy)


@pytest.mark.parametrize("name", [SKD_FILE, "cifar100.csv"])
def test_a_value_that_is_there_twice_is_refused(copy, name):
    taken = "resnet56,resnet20,crd,70,last,,a paper"
    lines = [taken] if name != SKD_FILE else [f"cifar100,{LINE}"] * 2
    line = add(copy, *lines, name=name) + len(lines) - 1
    message = refused(copy)
    assert message.startswith(f"{name}, line {line}: ")
    assert message.endswith("occurs twice; remove one of the lines")


def test_a_baseline_in_skds_file_may_not_be_in_the_data_sets_own_too(copy):
    line = add(copy, f"cifar100,{LINE.replace(',skd,', ',crd,')}")
    assert refused(copy).startswith(f"{SKD_FILE}, line {line}: ")


def test_an_open_quotation_mark_swallows_no_lines(copy):
    add(copy, f"cifar100,{LINE[:-1]}", f"cifar100,{LINE.replace('resnet20', 'resnet32')}")
    assert "a quotation mark is not closed" in refused(copy)


def test_a_file_that_is_not_utf8_is_named(copy):
    (copy / SKD_FILE).write_bytes(
        (copy / SKD_FILE).read_bytes() + "Table 1 \N{EN DASH}".encode("cp1252")
    )
    assert refused(copy).startswith(f"{SKD_FILE}: not UTF-8")


@pytest.mark.parametrize("folder", [PUBLISHED_FOLDER, Path("nowhere")])
@pytest.mark.parametrize(
    "dataset",
    [
        DatasetSpec(name="digits"),
        DatasetSpec(name="cifar100", split="validation"),
        DatasetSpec(name="cifar100", train_limit=1000),
        DatasetSpec(name="imagenet", split="validation"),
    ],
    ids=str,
)
def test_nothing_is_published_of_other_data(dataset, folder):
    assert published_values(dataset, folder) == {}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 100),
        ("batch_size", 128),
        ("milestones", (150, 180)),
        ("learning_rate_decay", 0.2),
        ("momentum", 0.8),
        ("nesterov", True),
        ("weight_decay", 1e-4),
        ("warmup_epochs", 5),
    ],
)
def test_a_recipe_is_unlike_by_anything_but_a_students_own_learning_rate(setting, value):
    usual = getattr(Recipe(), setting)
    other = Recipe(learning_rate=0.01).model_copy(update={setting: value})
    assert differences_from_published(CIFAR, other, "ShuffleV1") == {setting: (usual, value)}
    assert recipe_changes(Recipe(), other) == {
        "learning_rate": (0.05, 0.01),
        setting: (usual, value),
    }


def test_settings_without_effect_are_no_difference():
    other = Recipe(optimizer="adamw", momentum=0.5, schedule="cosine", milestones=())
    assert recipe_changes(Recipe(), other) == {
        "optimizer": ("sgd", "adamw"),
        "schedule": ("steps", "cosine"),
    }


def test_the_common_recipe_is_the_fields():
    assert differences_from_published(CIFAR, Recipe(), "resnet20") == {}
    slower = Recipe(learning_rate=0.01)
    assert differences_from_published(CIFAR, slower, "resnet20") == {"learning_rate": (0.05, 0.01)}
    assert differences_from_published(CIFAR, Recipe(), "MobileNetV2") == {
        "learning_rate": (0.01, 0.05)
    }
    assert differences_from_published(CIFAR, Recipe(), "resnet20", "crd") == {}
    two_views = Recipe(learning_rate=0.025)
    assert differences_from_published(CIFAR, two_views, "resnet20", "mlkd_two_views") == {}
    longer = Recipe(learning_rate=0.01, epochs=480)
    assert differences_from_published(CIFAR, longer, "MobileNetV2", "mlkd_two_views") == {}
    dropped = {"last_batch": ("keep", "drop")}
    assert differences_from_published(CIFAR, Recipe(last_batch="drop"), "resnet20") == dropped
    # What was added later has its neutral value.
    assert canonical(COMMON_RECIPES["cifar100"]) == {
        "epochs": 240,
        "batch_size": 64,
        "learning_rate": 0.05,
        "milestones": [150, 180, 210],
        "learning_rate_decay": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
    }
    assert (
        differences_from_published(DatasetSpec(name="digits"), Recipe(epochs=1), "resnet20") == {}
    )


@pytest.mark.parametrize(
    ("method", "batch", "rate"),
    [
        ("kd", 512, 0.2),
        ("dkd", 512, 0.2),
        ("skd", 512, 0.2),
        ("skd+dkd", 512, 0.2),
        ("student", 256, 0.1),
        ("crd", 256, 0.1),
        ("reviewkd", 256, 0.1),
        ("skd+crd", 256, 0.1),
        ("skd+reviewkd", 256, 0.1),
    ],
)
def test_imagenets_recipe_depends_on_the_method(method, batch, rate):
    usual = Recipe(
        epochs=100,
        batch_size=batch,
        learning_rate=rate,
        milestones=(30, 60, 90),
        weight_decay=1e-4,
    )
    assert differences_from_published(IMAGENET, usual, "resnet18", method) == {}
    # The published runs do not state it.
    grouped = usual.model_copy(update={"last_batch": "drop", "bn_batch": 64})
    assert differences_from_published(IMAGENET, grouped, "MobileNetV1", method) == {}
    halved = usual.model_copy(update={"batch_size": batch // 2})
    changed = {"batch_size": (batch, batch // 2)}
    assert differences_from_published(IMAGENET, halved, "resnet18", method) == changed
    shorter = usual.model_copy(update={"epochs": 90})
    assert differences_from_published(IMAGENET, shorter, "resnet18", method) == {
        "epochs": (100, 90)
    }
