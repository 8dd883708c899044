"""The command `skd-report`, which writes a study's report from what the store has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from report.output.write import report_folder, write_report
from report.statistics.verdicts import DEFAULT_MARGIN
from skd.cli.error_lines import run_command
from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import open_study, require_results
from skd.common import bounds
from skd.common.files import check_writable_folder
from skd.study.expansion_files import load_expansion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    margin: Annotated[
        float,
        typer.Option(
            min=0,
            callback=bounds.check_finite,
            help="margin of equivalence in percentage points: a difference within it counts as "
            "reproduced",
        ),
    ] = DEFAULT_MARGIN,
    output: Annotated[
        Path | None,
        typer.Option(
            help="folder for the report; the results folder is then only read "
            "[RESULTS/STUDY/report]"
        ),
    ] = None,
) -> None:
    """Write a study's report from the runs that are finished so far, and print its path."""
    if output is None:
        require_results(results)
        expansion = load_expansion(study, results)
    else:
        expansion = open_study(study, results)
    check_writable_folder(output or report_folder(results, expansion.study))
    typer.echo(write_report(expansion, results, margin, output))


def main() -> None:
    """Run the command line and print expected errors as one line instead of a traceback."""
    run_command("skd-report", app)
