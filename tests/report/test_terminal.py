"""The results of a study in a terminal of 80 columns."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from report.findings import Findings, read_findings
from report.formats import ABSENT
from report.output.terminal import results_tables
from report.sanity.doubts import Doubt
from tests.builders.findings import make_pair
from tests.builders.reported_study import METHODS, PAIRS, filled, make_study


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


REST = ["better", ABSENT]  # no published value


def printed(findings: Findings, width: int = 80) -> list[str]:
    console = Console(width=width, no_color=True, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        for part in results_tables(findings, width):
            console.print(part)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def _parts(line: str) -> list[str]:
    return re.split(r"\s{2,}", line)


def test_one_pair_has_a_row_for_each_method_with_gain_and_interval(findings: Findings) -> None:
    pair = findings.pairs[0]
    lines = printed(replace(findings, pairs=(pair,)))
    names = [findings.names.method(cell.method) for cell in pair.cells]
    rows = [line for line in lines if line.startswith(tuple(names))]
    assert [row[: len(name)] for row, name in zip(rows, names, strict=True)] == names
    of = dict(zip(names, (row.split() for row in rows), strict=True))
    assert of["SKD + KD"][3:] == ["72.77", "±", "1.00", "+3.77", "+2.97", "to", "+4.57", *REST]
    assert of["Student alone"][2:] == ["69.00", "±", "1.00", "69.06", "inconclusive"]  # no gain
    assert "verdict" in "".join(lines)  # its values are published


def test_several_pairs_are_columns_followed_by_mean_gains(findings: Findings) -> None:
    lines = printed(findings)
    names = findings.names
    assert lines[2].split() == [names.network(teacher) for teacher, _ in PAIRS]
    assert lines[3].split() == ["method", *(names.network(student) for _, student in PAIRS)]
    start = next(i for i, line in enumerate(lines) if line.startswith("Mean gain over"))
    gains = [_parts(line)[0] for line in lines[start + 2 : start + 1 + len(METHODS)]]
    assert gains == [names.method(method) for method in METHODS if method != "student"]


def test_a_cell_with_missing_runs_says_so(findings: Findings) -> None:
    assert "70.20 (1 of 3)" in "\n".join(printed(findings, 100))


def test_gains_are_left_out_if_no_method_has_one(findings: Findings) -> None:
    pairs = [make_pair({"student": [70.0, 71.0]}, teacher) for teacher, _ in PAIRS]
    lines = printed(replace(findings, pairs=(*pairs, make_pair({"student": [69.0]}, "vgg8"))))
    assert any(line.startswith("Student alone") for line in lines)
    assert "gain" not in "\n".join(lines).lower()


def test_cautions_follow_the_tables_and_notes_do_not(findings: Findings) -> None:
    kinds = {doubt.severity: doubt for doubt in findings.doubts}
    text = " ".join(" ".join(printed(findings)).split())
    assert "without a correction for the number of methods" in text
    assert " ".join(kinds["caution"].paragraph.split()) in text
    assert kinds["caution"].paragraph.startswith("In 1 run the simplified teacher collapsed")
    note = Doubt("made-up", "note", "Only for whoever repeats the study.")
    fatal = Doubt("made-up", "fatal", "Every run is at chance level.")
    text = "\n".join(printed(replace(findings, doubts=(fatal, note))))
    assert fatal.text in text
    assert note.text not in text


def test_a_study_without_results_says_so(tmp_path: Path) -> None:
    assert "No run has finished yet" in "\n".join(printed(read_findings(make_study(), tmp_path)))
