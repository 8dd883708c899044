"""The main table, its layouts and groups, and its four formats."""

import csv
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from report import formats
from report.findings import Findings, read_findings
from report.frames.averages import average_gains
from report.names import Names
from report.tables.csv_text import table_csv
from report.tables.displayed import displayed
from report.tables.latex import table_latex
from report.tables.main import main_table
from report.tables.markdown import table_markdown
from report.tables.method_groups import group_methods
from report.tables.paper import paper_tables
from report.tables.results import cells_table
from report.tables.table import ReportTable, TableColumn, TableEntry, transposed
from skd.store.store import Store
from skd.study.presentation import TableOptions
from skd.study.spec import DatasetSpec
from tests.builders.findings import make_pair
from tests.builders.reported_study import (
    ACCURACY,
    FIRST,
    METHODS,
    PAIRS,
    filled,
    make_record,
    make_study,
)

MANY = tuple(itertools.product(("resnet56", "resnet110", "vgg13"), ("resnet20", "MobileNetV2")))


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


@pytest.fixture(scope="module")
def of_many_pairs(tmp_path_factory) -> Findings:
    """Return a finished study of six pairs, three of the same style."""
    study, folder = make_study(pairs=MANY), tmp_path_factory.mktemp("results")
    for place, cell in enumerate(study.cells):
        for seed in cell.runs:
            record = make_record(cell, seed, 61.0 + place / 4 + seed**2)
            Store(folder).run(cell.runs[seed]).write(record)
    return read_findings(study, folder)


def by_label(table: ReportTable) -> dict[str, list[str]]:
    return {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}


def shown(findings: Findings, **options: str) -> ReportTable:
    methods = findings.expansion.methods
    return main_table(findings.pairs, methods, findings.names, TableOptions(**options))


def test_few_pairs_have_a_column_each_then_the_mean_and_the_gain(findings):
    table = findings.tables["main"]
    assert [column.label for column in table.columns] == [
        "", "ResNet-56 ResNet-20", "ResNet-110 ResNet-20", "VGG-13 MobileNetV2", "Mean",
        "Mean gain",
    ]  # fmt: skip
    rows = by_label(table)
    assert list(rows) == [
        "Teacher", "Student alone", "KD", "DKD", "SKD", "SKD + KD", "T-8",
    ]  # fmt: skip
    assert rows["Student alone"][:3] == ["69.00 ± 1.00", "69.00 ± 1.00", "64.60 ± 0.10"]
    by_seed = [np.mean([68, 68, 64.5]), np.mean([69, 69, 64.6]), np.mean([70, 70, 64.7])]
    assert rows["Student alone"][3] == f"{np.mean(by_seed):.2f} ± {np.std(by_seed, ddof=1):.2f}"
    # Only seed 0 of KD is finished in all pairs.
    assert rows["KD"][1] == "70.20*"
    assert rows["KD"][3] == f"{np.mean([70.0, 70.2, 66.0]):.2f}*"
    assert rows["KD"][4] == formats.signed((2.0 + 2.2 + 1.5) / 3) + "*"
    # The study has DKD for one pair only: by hand, 71.03 against 64.60.
    assert rows["DKD"] == [formats.ABSENT] * 2 + ["71.03 ± 0.15", "71.03 ± 0.15*", "+6.43*"]
    assert [e.text for row in table.rows for e in row if "best" in e.tone] == ["71.03 ± 0.15"]
    assert (
        f"*: not all pairs or seeds have a result. {formats.ABSENT}: no result. Bold:"
        in table.caption
    )


def test_many_pairs_are_averaged_by_style(of_many_pairs):
    pairs, table = of_many_pairs.pairs, of_many_pairs.tables["main"]
    assert [column.label for column in table.columns] == [
        "", "Same style (2)", "Different style (4)", "All pairs (6)", "Mean gain",
    ]  # fmt: skip
    same = [pair for pair in pairs if pair.style == "same"]
    accuracies = np.mean([list(pair.cell("kd").last_by_seed.values()) for pair in same], axis=0)
    row = by_label(table)["KD"]
    assert row[0] == f"{accuracies.mean():.2f} ± {accuracies.std(ddof=1):.2f}"
    gains = [pair.cell("kd").gain.mean for pair in pairs]
    assert row[3] == formats.signed(float(np.mean(gains)))
    assert "*" not in "".join(entry.text for row in table.rows for entry in row)
    assert "Bold" not in table.caption  # no column is of a single pair
    every = shown(of_many_pairs, layout="methods-as-rows")
    assert len(every.columns) == 1 + 6 + 2


def test_an_unfinished_study_is_averaged_over_the_pairs_with_results():
    teachers = ("resnet56", "resnet110", "vgg13", "vgg8", "wrn_40_2", "resnet44")
    pairs = [
        make_pair(
            {
                "student": [69.0, 70.0],
                "kd": [71.0 + place, 72.0 + place] if place < 3 else {},
                "dkd": {place: 75.0} if place < 2 else {},
            },
            teacher,
            teacher_top1=72.0 + place if place else None,
            expected=2,
        )
        for place, teacher in enumerate(teachers)
    ]
    table = main_table(pairs, ["student", "kd", "dkd"], Names({}), TableOptions())
    rows = by_label(table)
    assert rows["Teacher"] == [f"{72 + 15 / 5:.2f}*", formats.ABSENT]
    assert rows["student: resnet20"][0] == "69.50 ± 0.71"
    assert rows["kd"] == ["72.50 ± 0.71*", "+3.00*"]  # gains of 2, 3 and 4 points
    kd = table.rows[2]
    assert kd[1].hint == kd[2].hint == "mean over 3 of 6 pairs"
    assert rows["dkd"] == [formats.ABSENT] * 2  # no common seed
    assert table.rows[3][1].hint == "the pairs have no finished seed in common"
    # The first sentence and the table have the same mean gain.
    (average,) = average_gains(pairs, ["student", "kd", "dkd"])
    assert rows["kd"][1] == f"{formats.signed(average.difference.mean)}*"
    assert main_table([make_pair({"student": {}, "kd": {}})], ["student", "kd"], Names({}),
                      TableOptions()) is None  # fmt: skip


def test_one_seed_has_no_spread():
    pair = make_pair({"student": [69.0], "kd": [71.0]}, expected=1)
    table = main_table([pair], ["student", "kd"], Names({}), TableOptions())
    assert table.caption == (
        "Top-1 accuracy in percent at the last epoch, of one seed. Gain: in points over the "
        "student alone, paired by seed."
    )
    pairs = [pair, make_pair({"student": [68.0], "kd": [70.0]}, "resnet110", expected=1)]
    (of_style,) = paper_tables(pairs, ["student", "kd"], Names({}), 0.5, TableOptions())
    assert of_style.caption.startswith("Top-1 accuracy in percent at the last epoch, of one seed.")


def test_a_single_pair_has_its_networks_in_the_labels(tmp_path):
    study = make_study(pairs=(("resnet56", "resnet20"),))
    cell = study.cell(FIRST, "kd")
    Store(tmp_path).run(cell.runs[0]).write(make_record(cell, 0, 70.0))
    findings = read_findings(study, tmp_path)
    table = findings.tables["main"]
    assert [column.label for column in table.columns] == ["", "Top-1 (%)", "Gain"]
    assert list(by_label(table))[:3] == ["Teacher: ResNet-56", "Student alone: ResNet-20", "KD"]
    # The column of pairs would say the same in every row.
    assert findings.tables["cells"].columns[0].label == "Method"
    assert "same-style" in findings.tables  # has published values
    assert findings.tables["cells"].title == "Every method in full, ResNet-56 → ResNet-20"


def test_a_single_pair_without_published_values_is_not_shown_twice(tmp_path):
    study = make_study(DatasetSpec(name="cifar100", split="validation"), pairs=PAIRS[:1])
    cell = study.cell(FIRST, "kd")
    for seed, identity in cell.runs.items():
        Store(tmp_path).run(identity).write(make_record(cell, seed, 70.0 + seed))
    tables = read_findings(study, tmp_path).tables
    assert not {"same-style", "different-style"} & tables.keys()
    assert "verdict" not in tables["teachers"].caption
    columns = [column.label for column in tables["cells"].columns]
    assert columns[:3] == ["Method", "Gain over student alone", "Last epoch"]
    assert "Best epoch" in columns


def test_a_best_epoch_that_is_the_last_has_no_column(findings):
    pairs = [
        replace(pair, cells=tuple(replace(cell, best=cell.last) for cell in pair.cells))
        for pair in findings.pairs
    ]
    table = cells_table(pairs, findings.names, 0.5)
    assert "Best epoch" not in [column.label for column in table.columns]
    assert "best epoch" not in table.caption
    assert "Best epoch" in [column.label for column in findings.tables["cells"].columns]


def test_the_interval_is_half_the_width_of_the_t_interval(findings):
    values = list(ACCURACY[FIRST, "kd"].values())
    # Accuracies over 10,000 images have a step of 0.01, a variance of 0.01²/12.
    se = np.sqrt((np.var(values, ddof=1) + 0.01**2 / 12) / 3)
    row = by_label(shown(findings, spread="interval"))["KD"]
    assert row[0] == f"{np.mean(values):.2f} ± {stats.t.ppf(0.975, 2) * se:.2f}"
    assert row[1] == "70.20*"  # one seed has no interval
    assert by_label(shown(findings, spread="none"))["KD"][0] == f"{np.mean(values):.2f}"


def test_methods_as_columns_is_the_same_table_turned(of_many_pairs):
    rows = shown(of_many_pairs, layout="methods-as-rows")
    columns = shown(of_many_pairs, layout="methods-as-columns")
    turned = [[entry.text for entry in row[1:]] for row in columns.rows]
    assert turned == [list(part) for part in zip(*by_label(rows).values(), strict=True)]
    assert [column.label for column in columns.columns[1:]] == list(by_label(rows))
    assert columns.rows[0][0].text == "ResNet-56 → ResNet-20"
    begins = [place for place, column in enumerate(columns.columns, -1) if column.begins_group]
    assert tuple(begins) == rows.groups
    assert transposed(columns).rows[1][1:] == rows.rows[1][1:]


def test_rules_stand_between_the_student_baselines_and_skd(findings):
    pairs, methods = findings.pairs, list(METHODS)
    groups = group_methods(pairs, methods)
    assert (groups.methods, groups.starts) == (tuple(METHODS), {"kd", "skd"})
    # The student alone comes first. Groups that alternate have only the rule below it.
    groups = group_methods(pairs, ["skd", "kd", "student", "T-8", "dkd"])
    assert groups.methods == ("student", "skd", "kd", "T-8", "dkd")
    assert groups.starts == {"skd"}


def test_every_format_shows_the_groups_and_the_numbers(findings):
    table = findings.tables["main"]
    assert table.groups == (2, 4)
    lines = table_markdown(table).splitlines()
    empty = "| " + " | ".join([""] * 6) + " |"
    assert [line for line in lines if line.startswith("|")].count(empty) == 2
    tex = table_latex(table)
    assert tex.count(r"\midrule") == 1 + 2
    assert tex.index(r"\midrule", tex.index("Student alone")) < tex.index("KD &")
    rows = list(csv.reader(io.StringIO(table_csv(table))))
    assert rows[0] == [column.label for column in table.columns]
    assert rows[3][:3] == ["KD", "70.83 ± 1.04", "70.20*"]


def test_csv_has_plain_signs_and_columns_for_second_lines():
    entry = TableEntry("\N{MINUS SIGN}1\u202f000, x", detail='a "b"')
    columns = (TableColumn("One\ntwo"), TableColumn("n"))
    table = ReportTable("key", "", "", columns, ((entry, TableEntry("2")),))
    rows = list(csv.reader(io.StringIO(table_csv(table))))
    assert rows == [["One two", "One two (details)", "n"], ["-1000, x", 'a "b"', "2"]]


def test_columns_that_hold_names_show_display_names():
    columns = (
        TableColumn("Pair", holds="pair"),
        TableColumn("", holds="methods"),
        TableColumn("", holds="network"),
        TableColumn("kd"),
    )
    row = ("a → b", "kd, skd+kd", "b", "kd")
    table = ReportTable("key", "Title", "", columns, (tuple(map(TableEntry, row)),) * 2)
    names = Names({"kd": "KD", "skd": "SKD"}, {"b": "B"})
    shown = displayed(table, names, num_pairs=2)
    assert [entry.text for entry in shown.rows[0]] == ["a → B", "KD, SKD + KD", "B", "kd"]
    of_one_pair = displayed(table, names, num_pairs=1)
    assert (of_one_pair.title, len(of_one_pair.columns)) == ("Title, a → B", 3)
