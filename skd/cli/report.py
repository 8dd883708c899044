"""The command `skd-report`, which writes a study's report from what the store has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from report.output.margin import store_margin, stored_margin
from report.output.write import report_folder, write_report, write_tables
from report.statistics.verdicts import DEFAULT_MARGIN
from skd.cli.error_lines import run_command
from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import open_study, require_results
from skd.common import bounds
from skd.common.files import check_writable_folder
from skd.study.expansion_files import load_expansion

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",  # leaves brackets in a text as they are
    pretty_exceptions_enable=False,
)


@app.command()
def report(
    study: StudyArgument,
    tables: Annotated[
        bool,
        typer.Option(
            "--tables",
            help="write only the tables (Markdown, LaTeX) and the data (CSV, Parquet), which takes "
            "seconds; the page and the figures of the last report stay as they are",
        ),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            callback=bounds.check_finite,
            help="margin of equivalence in percentage points: a difference within it counts as "
            "reproduced; later reports of the study, those of the workflow too, use it again "
            f"(default: the last one that was given, or {DEFAULT_MARGIN})",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="folder for the report; the results folder is then only read "
            "(default: RESULTS/STUDY/report)",
        ),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write a study's report from the runs that are finished so far, and print its path."""
    if output is None:
        require_results(results)
        expansion = load_expansion(study, results)
    else:
        expansion = open_study(study, results)
    check_writable_folder(output or report_folder(results, expansion.study))
    used = _margin(margin, results, expansion.study, store=output is None)
    write = write_tables if tables else write_report
    typer.echo(write(expansion, results, used, output))


def _margin(given: float | None, results: Path, study: str, store: bool) -> float:
    """Return the margin to use: the given one, the stored one, or the default.

    Prints that a stored one is used. A given one is stored if ``store`` is true.

    Raises:
        MarginError: the stored margin is damaged.
    """
    if given is not None:
        if store:
            store_margin(given, results, study)
        return given
    stored = stored_margin(results, study)
    if stored is None:
        return DEFAULT_MARGIN
    typer.echo(
        f"margin {stored:g} points, given to an earlier report of {study}; back to the default: "
        f"--margin {DEFAULT_MARGIN:g}",
        err=True,
    )
    return stored


def main() -> None:
    """Run the command line and print expected errors as one line instead of a traceback."""
    run_command("skd-report", app)
