"""The margin that later reports of a study use again, and reports of tables alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from report.output.margin import MarginError, margin_path, store_margin, stored_margin
from report.output.write import write_tables
from report.statistics.verdicts import DEFAULT_MARGIN
from skd.cli.report import _margin
from tests.builders.reported_study import filled

LIGHT = """
import sys
import skd.cli.report
print(*sorted({"matplotlib", "seaborn", "torch"} & set(sys.modules)))
"""


def test_a_given_margin_is_used_until_another_one_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _margin(None, tmp_path, "small", store=True) == DEFAULT_MARGIN
    assert _margin(0.25, tmp_path, "small", store=True) == 0.25
    assert capsys.readouterr().err == ""
    assert _margin(None, tmp_path, "small", store=True) == 0.25
    assert "margin 0.25 points" in capsys.readouterr().err
    assert _margin(None, tmp_path, "other", store=True) == DEFAULT_MARGIN
    assert _margin(DEFAULT_MARGIN, tmp_path, "small", store=True) == DEFAULT_MARGIN
    assert not margin_path(tmp_path, "small").exists()


def test_a_report_elsewhere_uses_the_margin_and_leaves_it(tmp_path: Path) -> None:
    store_margin(0.25, tmp_path, "small")
    assert _margin(1.0, tmp_path, "small", store=False) == 1.0
    assert _margin(None, tmp_path, "small", store=False) == 0.25


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"margin": "0.3"}', '{"margin": -1}'])
def test_a_damaged_margin_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = margin_path(tmp_path, "small")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(MarginError, match=r"report-margin\.json .* --margin"):
        stored_margin(tmp_path, "small")


def test_tables_alone_leave_page_and_figures_as_they_are(tmp_path: Path) -> None:
    study = filled(tmp_path)
    folder = tmp_path / "small" / "report"
    (folder / "figures").mkdir(parents=True)
    old = folder / "index.html", folder / "figures" / "old.svg"
    for path in old:
        path.write_text("old")
    assert write_tables(study, tmp_path) == folder / "results.md"
    assert [path.read_text() for path in old] == ["old", "old"]
    assert (folder / "tables" / "cells.tex").is_file()
    assert (folder / "data" / "cells.parquet").is_file()
    assert not list((folder / "figures").glob("*.pdf"))


def test_tables_alone_need_no_drawing_library() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
