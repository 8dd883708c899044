"""The results of a study in a terminal of 80 columns."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from report.findings import Findings, read_findings
from report.output.terminal import results_tables
from tests.builders.reported_study import METHODS, PAIRS, filled, make_study


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


def printed(findings: Findings, width: int = 80) -> list[str]:
    console = Console(width=width, no_color=True, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        for part in results_tables(findings, width):
            console.print(part)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def test_one_pair_has_a_row_for_each_method_with_gain_and_interval(findings: Findings) -> None:
    pair = findings.pairs[0]
    lines = printed(replace(findings, pairs=(pair,)))
    rows = {line.split()[0]: line for line in lines if line and line.split()[0] in METHODS}
    assert list(rows) == [cell.method for cell in pair.cells]
    assert rows["skd+kd"].split()[1:7] == ["72.77", "±", "1.00", "+3.77", "+2.97", "to"]
    assert rows["skd+kd"].split()[7:9] == ["+4.57", "better"]
    assert rows["student"].split()[1:4] == ["69.00", "±", "1.00"]  # no gain over itself
    assert "verdict" in "".join(lines)  # its values are published


def test_several_pairs_are_columns_followed_by_mean_gains(findings: Findings) -> None:
    lines = printed(findings)
    heads = [line.split() for line in lines]
    assert heads[2] == [teacher for teacher, _ in PAIRS]  # the headings have two lines
    start = next(i for i, line in enumerate(lines) if line.startswith("Mean gain over"))
    methods = [line.split()[0] for line in lines[start + 2 :] if line][: len(METHODS) - 1]
    assert methods == [method for method in METHODS if method != "student"]


def test_a_cell_with_missing_runs_says_so(findings: Findings) -> None:
    assert "70.20 (1 of 3)" in "\n".join(printed(findings, 100))


def test_a_study_without_results_says_so(tmp_path: Path) -> None:
    assert "No run has finished yet" in "\n".join(printed(read_findings(make_study(), tmp_path)))
