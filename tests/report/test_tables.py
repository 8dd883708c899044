"""Findings and tables, against numbers computed by hand; the three formats agree."""

import math
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from report import formats
from report.findings import Findings, read_findings
from report.frames.outcomes import outcome_counts
from report.output.write import report_markdown
from report.tables.latex import escape_latex, latex_document, table_latex
from report.tables.markdown import escape_markdown, table_markdown
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.published import PUBLISHED_FOLDER, published_values
from tests.builders.reported_study import FIRST, filled, make_study


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


@pytest.fixture(scope="module")
def cells(findings) -> dict:
    return {(pair.teacher.name, c.method): c for pair in findings.pairs for c in pair.cells}


def test_formats():
    assert formats.signed(-0.004) == "0.00"
    assert formats.signed(-1.5) == "\N{MINUS SIGN}1.50"
    assert formats.number(math.nan) == formats.number(None) == formats.ABSENT
    assert formats.join_names(["a", "b", "c"]) == "a, b and c"
    assert formats.plural(1, "run") == "1 run"
    assert [formats.duration(s) for s in (6.0, 600.0, 36000.0)] == ["6 s", "10 min", "10.0 h"]
    assert [formats.p_equals(p) for p in (0.0001, 0.04)] == ["p < 0.001", "p = 0.040"]


def test_frame_has_every_expected_run_and_shares_the_student_alone(findings):
    frames = findings.frames
    assert len(frames.runs) == 3 * 6 * 3
    alone = frames.runs[frames.runs["method"] == "student"]
    assert alone["shared"].all()
    means = alone.groupby("pair", sort=False)["last_top1"].mean()
    assert list(means) == pytest.approx([69.0, 69.0, 64.6])
    assert outcome_counts(frames) == {"done": 26, "failed": 1, "missing": 23, "unreadable": 1}
    assert len(frames.epochs) == (26 + 3) * 240


def test_cells_have_the_numbers_computed_by_hand(cells):
    kd = cells["resnet56", "kd"]
    assert kd.last.mean == pytest.approx(212.5 / 3)
    assert kd.last.sd == pytest.approx(math.sqrt(13 / 12))
    assert kd.best.mean == pytest.approx(212.5 / 3 + 0.5)
    assert kd.gain.mean == pytest.approx((2 + 1.5 + 2) / 3)
    # Accuracies over 10,000 images have a step of 0.01, each a variance of 0.01²/12.
    se = math.sqrt((np.var([2, 1.5, 2], ddof=1) + 2 * 0.01**2 / 12) / 3)
    assert kd.gain.interval() == pytest.approx(stats.t.interval(0.95, 2, loc=5.5 / 3, scale=se))
    assert (kd.done, kd.expected, kd.marks) == (3, 3, ())
    single = cells["resnet110", "kd"]
    assert (single.last.mean, single.last.sd) == (70.2, None)
    assert (single.gain.n, single.gain.interval()) == (1, None)
    assert cells["resnet110", "student"].gain is None


def test_outcomes_are_marked(cells):
    def texts(key):
        return [mark.text for mark in cells[key].marks]

    assert texts(("resnet56", "skd")) == ["1 collapsed"]
    assert texts(("resnet110", "kd")) == ["1 failed", "1 not run"]
    assert texts(("resnet110", "skd")) == ["1 unreadable", "1 not run"]
    assert texts(("vgg13", "skd")) == ["not run"]


def test_verdicts_compare_like_with_like(cells):
    kinds = {key: cell.verdict.kind for key, cell in cells.items() if cell.verdict}
    assert kinds == {
        ("resnet56", "student"): "inconclusive",
        ("resnet56", "kd"): "inconclusive",
        ("resnet56", "dkd"): "not run",
        ("resnet110", "student"): "inconclusive",
        ("resnet110", "kd"): "inconclusive",
        ("resnet110", "dkd"): "not run",
        ("vgg13", "student"): "reproduced",
        ("vgg13", "kd"): "lower",
        ("vgg13", "dkd"): "higher",
    }
    best = cells["vgg13", "dkd"].verdict.comparisons[0]
    assert best.epoch == "best"
    assert best.difference.mean == pytest.approx((70.9 + 71.0 + 71.2) / 3 + 0.5 - 69.71)
    assert [c.epoch for c in cells["resnet110", "dkd"].verdict.comparisons] == ["last", "best"]


def test_styles_follow_the_family_and_teachers_come_first(findings):
    assert [pair.style for pair in findings.pairs] == ["same", "same", "different"]
    assert list(findings.tables)[:4] == ["main", "teachers", "same-style", "different-style"]
    assert findings.pairs[0].teacher.difference == pytest.approx(72.63 - 72.34)
    assert findings.pairs[1].teacher.difference is None


def test_the_best_is_marked_only_where_it_leads_significantly(findings):
    assert [pair.best_method for pair in findings.pairs] == [None, None, "dkd"]
    bold = [
        e.text for row in findings.tables["different-style"].rows for e in row if "best" in e.tone
    ]
    assert bold == ["71.03 ± 0.15"]


def test_combinations_ablation_and_temperature_are_found_in_the_settings(findings):
    (row,) = (r for r in findings.tables["combinations"].rows if r[0].text.startswith("ResNet-56"))
    assert (row[1].text, row[4].text) == ("KD", "72.77 ± 1.00")
    assert row[5].text == formats.signed((2 + 1.9 + 1.9) / 3)
    ablation = findings.tables["ablation"].rows
    assert [r[1].text for r in ablation[:2]] == ["SKD", "T-8"]
    assert ablation[1][2].text == "A1, A5"
    assert "temperature 8 instead of 4" in ablation[1][1].detail
    columns = [column.title for column in findings.tables["temperature"].columns]
    assert columns == ["Pair", "Methods", "T = 4", "T = 8"]


def test_a_run_that_two_methods_share_counts_once_and_differs_in_nothing(tmp_path):
    study = filled(tmp_path)
    kd = study.cell(FIRST, "kd")
    twin = kd.model_copy(update={"method": "kd-again"})
    changes = {"cells": (*study.cells, twin), "methods": (*study.methods, "kd-again")}
    findings = read_findings(make_study().model_copy(update=changes), tmp_path)
    assert outcome_counts(findings.frames)["done"] == 26
    compared = findings.pairs[0].comparison_of("kd", "kd-again")
    assert (compared.difference.mean, compared.p) == (0.0, 1.0)
    assert "26 runs" in findings.tables["cost"].caption


def test_skds_own_numbers_once_typed_in_are_judged_like_the_others(tmp_path, monkeypatch):
    folder = tmp_path / "published"
    shutil.copytree(PUBLISHED_FOLDER, folder)
    with (folder / "skd.csv").open("a") as file:
        file.write('cifar100,resnet56,resnet20,skd+kd,72.60,,last,3,0.9,"made up, Table 0"\n')
    typed_in = partial(published_values, folder=folder)
    monkeypatch.setattr("report.findings.published_values", typed_in)
    findings = read_findings(filled(tmp_path / "results"), tmp_path / "results")
    verdict = findings.pairs[0].cell("skd+kd").verdict
    ours = [72.0, 72.4, 73.9]
    welch = stats.ttest_ind_from_stats(
        np.mean(ours), np.std(ours, ddof=1), 3, 72.60, 0.9, 3, equal_var=False
    )
    assert verdict.comparisons[0].difference.p == pytest.approx(welch.pvalue, abs=1e-5)
    assert not any("paper's own numbers" in sentence for sentence in findings.headline)
    assert "72.60 (last, 3 runs)" in report_markdown(findings)


TRICKY = ReportTable(
    key="tricky",
    title="Under_score & 100 %",
    caption='a|b <i>c</i> $x$ \\y {z} [w] *v* ~u ^t "s" é 漢',
    columns=(TableColumn("One\ntwo", number=False), TableColumn("n")),
    rows=((TableEntry("a_b|c", detail="x & y", marks=(("failed", "1 failed"),)), TableEntry("±1")),)
    * 2,
)


def test_a_table_refuses_a_row_of_another_length():
    with pytest.raises(ValueError, match="tricky: 1 entries in 2 columns"):
        ReportTable("tricky", "", "", TRICKY.columns, ((TableEntry("a"),),))


def test_markdown_cannot_be_broken_out_of():
    text = table_markdown(TRICKY)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<i>" not in text
    assert "a\\_b\\|c; 1 failed<br>x & y" in text
    assert rows[0].startswith("| One<br>two | n |")


def test_latex_is_escaped():
    assert escape_latex("a_b & 5 % → {x}") == r"a\_b \& 5 \% $\rightarrow$ \{x\}"
    assert escape_latex("漢é") == "?é"
    assert escape_latex("12\u202f345\u00a0s\n") == r"12\,345~s"
    fragment = table_latex(TRICKY)
    assert fragment.count(r"\begin{tabular}{lr}") == 1
    assert r"\shortstack{One\\two}" in fragment


def test_all_formats_have_the_same_entries(findings):
    text = report_markdown(findings)
    tex = latex_document("t", findings.headline, list(findings.tables.values()))
    for table in findings.tables.values():
        for entry in (entry for row in table.rows for entry in row if entry.text):
            assert escape_latex(entry.text) in tex
            assert escape_markdown(entry.text) in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX is installed")
def test_latex_compiles_as_it_is(findings, tmp_path: Path):
    tables = [TRICKY, *findings.tables.values()]
    tables.append(ReportTable("long", "Long", "Long.", TRICKY.columns, TRICKY.rows * 40))
    (tmp_path / "results.tex").write_text(
        latex_document('A_"title" é Þ ½ \N{BELL}', findings.headline, tables)
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "results.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "results.pdf").stat().st_size > 10_000
