"""The report of an ImageNet study: the usual verdicts, top-5, and recipes by method."""

from pathlib import Path

import pytest

from report.findings import Findings, read_findings
from report.formats import ABSENT, MINUS
from report.output.protocol import recipe_exceptions, recipe_text
from report.output.write import write_report
from report.tables.table import ReportTable
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.spec import DatasetSpec, Recipe
from tests.builders.reported_study import make_card, make_record, make_study

IMAGENET = DatasetSpec(name="imagenet")
PAIRS = (("resnet34", "resnet18"), ("resnet50", "MobileNetV1"))
RECIPE = Recipe(
    epochs=100,
    batch_size=512,
    learning_rate=0.2,
    milestones=(30, 60, 90),
    weight_decay=1e-4,
    last_batch="drop",
    bn_batch=64,
)
OF_METHODS = {"student": {"batch_size": 256, "learning_rate": 0.1}}
# Top-1 by seed; records have a best epoch 0.5 above it, and a top-5 20 above it. Published are
# 69.75 (student), 71.03 (kd) and 71.70 (dkd), of unstated epochs.
ACCURACY = {
    ("resnet18", "student"): {0: 69.6, 1: 69.65, 2: 69.7},
    ("resnet34--resnet18", "kd"): {0: 70.0, 1: 70.05, 2: 70.1},
    ("resnet34--resnet18", "skd"): {0: 71.0, 1: 71.2, 2: 71.4},
}


def filled(folder: Path, study: Expansion) -> Findings:
    store = Store(folder)
    for (pair, method), runs in ACCURACY.items():
        cell = study.cell(pair, method)
        for seed, top1 in runs.items():
            store.run(cell.runs[seed]).write(make_record(cell, seed, top1))
    card = make_card(study, "resnet34", test_top1=73.31, test_top5=91.42)
    store.teacher(card.id).write(card)
    return read_findings(study, folder)


@pytest.fixture(scope="module")
def study() -> Expansion:
    return make_study(IMAGENET, RECIPE, PAIRS, OF_METHODS)


@pytest.fixture(scope="module")
def findings(study: Expansion, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return filled(tmp_path_factory.mktemp("results"), study)


def rows(table: ReportTable) -> dict[tuple[str, str], list[str]]:
    return {(row[0].text, row[1].text): [e.text for e in row[2:]] for row in table.rows}


FIRST, SECOND = (f"{teacher} → {student}" for teacher, student in PAIRS)
SHOWN = ("ResNet-34 → ResNet-18", "ResNet-50 → MobileNetV1")


def test_every_cell_is_judged_by_the_published_values(findings: Findings) -> None:
    kinds = {
        (pair.pair, cell.method): cell.verdict and cell.verdict.kind
        for pair in findings.pairs
        for cell in pair.cells
    }
    assert kinds[FIRST, "student"] == "reproduced"
    assert kinds[FIRST, "kd"] == "lower"
    assert kinds[FIRST, "dkd"] == kinds[SECOND, "student"] == "not run"
    assert kinds[FIRST, "skd"] is None  # the paper's own number is unknown
    assert findings.answer.lead.startswith("1 of 2 published values is reproduced within 0.5")
    assert "ours is lower for 1; 4 more have no finished run" in findings.answer.lead
    assert [pair.style for pair in findings.pairs] == ["same", "different"]


def test_the_table_has_top1_and_top5_of_all_cells_and_teachers(findings: Findings) -> None:
    table = findings.tables["imagenet"]
    entries = rows(table)
    assert len(entries) == len(table.rows) == 2 * (1 + 6)
    assert [column.title for column in table.columns][2:] == [
        "Top-1",
        "Published\ntop-1",
        "Ours minus\npublished",
        "Verdict",
        "Top-5",
        "Published\ntop-5",
    ]
    assert entries[SHOWN[0], "KD"] == [
        "70.05 ± 0.05",
        "71.03 (epoch unstated†)",
        f"{MINUS}0.98 (last), {MINUS}0.48 (best)",
        "lower",
        "90.05 ± 0.05",
        "90.05",
    ]
    assert entries[SHOWN[0], "Teacher"] == [
        "73.31",
        "73.31 (epoch unstated†)",
        "0.00",
        ABSENT,
        "91.42",
        "91.42",
    ]
    assert entries[SHOWN[1], "Teacher"][::4] == ["", ABSENT]  # not available
    assert entries[SHOWN[0], "SKD"][0] == "71.20 ± 0.20"
    assert entries[SHOWN[0], "SKD"][1] == "not available"
    assert entries[SHOWN[0], "SKD"][4:] == ["91.20 ± 0.20", ABSENT]
    assert entries[SHOWN[0], "DKD"] == [
        "",
        "71.70 (epoch unstated†)",
        ABSENT,
        "not run",
        ABSENT,
        "90.41",
    ]


def test_the_teachers_row_marks_an_unstated_epoch_like_the_cells(findings: Findings) -> None:
    teachers, students = findings.tables["same-style"].rows[:2]
    assert teachers[1].detail == "73.31 epoch?, 0.00"
    assert students[1].detail.startswith("69.75† epoch?")


def test_another_studys_report_shows_what_is_published(tmp_path: Path) -> None:
    entries = rows(read_findings(make_study(), tmp_path).tables["imagenet"])
    assert len(entries) == 12
    assert entries[SHOWN[0], "Teacher"] == ["73.31 (epoch unstated†)", "91.42", "not run"]
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "specs.json").write_text("{}")
    entries = rows(read_findings(make_study(), tmp_path).tables["imagenet"])
    assert {row[-1] for row in entries.values()} == {"see study imagenet"}


def test_fewer_images_have_top5_and_nothing_published(tmp_path: Path) -> None:
    limited = DatasetSpec(name="imagenet", train_limit=1000)
    findings = filled(tmp_path, make_study(limited, RECIPE, PAIRS, OF_METHODS))
    assert rows(findings.tables["imagenet"])[SHOWN[0], "KD"] == [
        "70.05 ± 0.05",
        "not available",
        ABSENT,
        ABSENT,
        "90.05 ± 0.05",
        ABSENT,
    ]


def test_a_method_by_another_recipe_than_its_published_one_is_not_compared(tmp_path: Path) -> None:
    findings = filled(tmp_path, make_study(IMAGENET, RECIPE, PAIRS))  # the student's batch is 512
    table = rows(findings.tables["imagenet"])
    assert table[SHOWN[0], "Student alone"][2:4] == [ABSENT, "not compared"]
    assert table[SHOWN[0], "KD"][3] == "lower"
    page = write_report(findings.expansion, tmp_path).read_text()
    assert "so there are no verdicts" not in page


def test_the_recipe_says_who_differs_and_how_batches_are_taken(study: Expansion) -> None:
    text = recipe_text(RECIPE)
    assert "batches of 512 (an incomplete last batch of an epoch is dropped)" in text
    assert "BatchNorm statistics over 64 images" in text
    assert "left out" not in recipe_text(Recipe())
    changes = "batch size 256 instead of 512, learning rate 0.1 instead of 0.2"
    assert recipe_exceptions(study) == [f"student: {changes}"]


def test_exceptions_name_students_methods_or_cells() -> None:
    slower = "learning rate 0.01 instead of 0.05"
    assert recipe_exceptions(make_study()) == [f"MobileNetV2: {slower}"]
    of_methods = {"kd": {"epochs": 9}, "dkd": {"epochs": 9, "learning_rate": 0.05}}
    assert recipe_exceptions(make_study(of_methods=of_methods)) == [
        "resnet56--resnet20/kd, resnet56--resnet20/dkd, resnet110--resnet20/kd, "
        "resnet110--resnet20/dkd, vgg13--MobileNetV2/dkd: epochs 9 instead of 240",
        "MobileNetV2/student, vgg13--MobileNetV2/skd, vgg13--MobileNetV2/skd+kd, "
        f"vgg13--MobileNetV2/T-8: {slower}",
        "vgg13--MobileNetV2/kd: epochs 9 instead of 240, learning rate 0.01 instead of 0.05",
    ]


def test_the_page_is_rendered_with_the_table(study: Expansion, findings: Findings) -> None:
    page = write_report(study, findings.results)
    text = page.read_text()
    assert 'id="imagenet"' in text
    assert "91.42" in (page.parent / "tables/imagenet.md").read_text()
    cells = (page.parent / "data/cells.csv").read_text().splitlines()
    assert {"last_top5_mean", "published_top5"} <= set(cells[0].split(","))
