"""The command ``skd-report STUDY``: renders what the store holds now, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from report.output.write import report_folder, write_report
from report.statistics.verdicts import DEFAULT_MARGIN
from skd.cli.error_lines import run_command
from skd.cli.options import DEFAULT_RESULTS, ResultsOption
from skd.cli.results_folder import open_study, require_results
from skd.common import bounds
from skd.common.files import check_writable_folder
from skd.study.expansion import load_expansion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")],
    results: ResultsOption = DEFAULT_RESULTS,
    margin: Annotated[
        float,
        typer.Option(
            min=0,
            callback=bounds.check_finite,
            help="of equivalence, in points: within it is reproduced",
        ),
    ] = DEFAULT_MARGIN,
    output: Annotated[
        Path | None,
        typer.Option(
            help="folder for the report, where another user's results are only read "
            "[RESULTS/STUDY/report]"
        ),
    ] = None,
) -> None:
    """Write a study's report, whatever has been run so far, and print its path."""
    if output is None:
        require_results(results)
        expansion = load_expansion(study, results)
    else:
        expansion = open_study(study, results)
    check_writable_folder(output or report_folder(results, expansion.study))
    typer.echo(write_report(expansion, results, margin, output))


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    run_command("skd-report", app)
