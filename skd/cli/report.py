"""The command ``skd-report STUDY``: renders what the store holds now, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from report.output.render import render, report_folder
from report.statistics.verdicts import MARGIN
from skd.cli.lookup import look_up, require_results
from skd.cli.options import RESULTS, Results
from skd.cli.running import run
from skd.common import bounds
from skd.common.files import check_writable_folder
from skd.study.expansion import load_expansion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")],
    results: Results = RESULTS,
    margin: Annotated[
        float,
        typer.Option(
            min=0,
            callback=bounds.finite,
            help="of equivalence, in points: within it is reproduced",
        ),
    ] = MARGIN,
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
        expansion = look_up(study, results)
    check_writable_folder(output or report_folder(results, expansion.study))
    typer.echo(render(expansion, results, margin, output))


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    run("skd-report", app)
