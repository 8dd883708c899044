"""Write a study's report to ``results/<study>/report/``.

The report is one self-contained HTML page. The same folder contains its tables as Markdown, LaTeX
and CSV, its figures as SVG and PDF, and all its data as CSV and Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from report.findings import Findings, read_findings
from report.output.export import data_files
from report.statistics.verdicts import DEFAULT_MARGIN
from report.tables import latex
from report.tables.csv_text import table_csv
from report.tables.markdown import escape_markdown, table_markdown
from skd.common.files import write_atomically
from skd.study.expansion import Expansion

if TYPE_CHECKING:
    from report.figures.gallery import Gallery

FOLDERS = ("data", "figures", "tables")
PAGE = "index.html"
TABLES_PAGE = "results.md"


def report_folder(results: Path, study: str) -> Path:
    """Return the folder of a study's report."""
    return results / study / "report"


def write_report(
    expansion: Expansion, results: Path, margin: float = DEFAULT_MARGIN, output: Path | None = None
) -> Path:
    """Write the report of the store's current contents, and return the page's path.

    Args:
        expansion: the study.
        results: the results folder with its runs.
        margin: margin of equivalence, in points.
        output: the report's folder. In the default folder, ``results/<study>/report``, files of an
            earlier report are removed; nothing is removed from another folder.

    Raises:
        PublishedError: a file of published values cannot be read.
    """
    # Imported here, so that tables alone need neither Matplotlib nor seaborn.
    from report.figures.gallery import make_gallery

    findings = read_findings(expansion, results, margin)
    gallery = make_gallery(
        findings.expansion,
        findings.frames,
        findings.pairs,
        findings.analyses,
        findings.ranking,
        margin,
        findings.names,
    )
    folder = output or report_folder(results, expansion.study)
    written = _write(folder, _table_files(findings)) | _write(
        folder, _page_files(findings, gallery)
    )
    if output is None:
        for path in (path for name in FOLDERS for path in (folder / name).glob("*")):
            if path.is_file() and path not in written:  # left by an earlier report
                path.unlink()
    return folder / PAGE


def write_tables(
    expansion: Expansion, results: Path, margin: float = DEFAULT_MARGIN, output: Path | None = None
) -> Path:
    """Write the report's tables and data without its page and figures; return the tables' page.

    The arguments are those of `write_report`. An earlier report's page and figures stay as they
    are.

    Raises:
        PublishedError: a file of published values cannot be read.
    """
    folder = output or report_folder(results, expansion.study)
    _write(folder, _table_files(read_findings(expansion, results, margin)))
    return folder / TABLES_PAGE


def _write(folder: Path, files: Iterator[tuple[str, bytes]]) -> set[Path]:
    """Write files, each given by name and content, and return their paths."""
    written = set()
    for name, content in files:
        write_atomically(folder / name, content)
        written.add(folder / name)
    return written


def _table_files(findings: Findings) -> Iterator[tuple[str, bytes]]:
    tables, title = list(findings.tables.values()), findings.expansion.title
    for table in tables:
        yield f"tables/{table.key}.md", table_markdown(table).encode()
        yield f"tables/{table.key}.tex", latex.table_latex(table).encode()
        yield f"tables/{table.key}.csv", table_csv(table).encode()
    for name, content in data_files(findings).items():
        yield f"data/{name}", content
    yield TABLES_PAGE, report_markdown(findings).encode()
    yield "results.tex", latex.latex_document(title, findings.headline, tables).encode()


def _page_files(findings: Findings, gallery: Gallery) -> Iterator[tuple[str, bytes]]:
    from report.output.page import render_page

    for drawing in gallery.drawings:
        yield f"figures/{drawing.name}.svg", drawing.svg.encode()
        yield f"figures/{drawing.name}.pdf", drawing.pdf
    yield PAGE, render_page(findings, gallery).encode()


def report_markdown(findings: Findings) -> str:
    """Return the title, the headline and all tables as one Markdown page."""
    parts = [f"# {escape_markdown(findings.expansion.title)}\n"]
    parts += [f"{escape_markdown(paragraph)}\n" for paragraph in findings.headline]
    return "\n".join([*parts, *map(table_markdown, findings.tables.values())])
