"""The command ``skd-report STUDY``: renders what the store holds now, finished or not."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from report.render import render
from report.verdicts import MARGIN
from skd import bounds
from skd.errors import SkdError
from skd.study import load_expansion
from skd.terminal import printable, tolerate_encoding
from skd.training.options import RESULTS, Results

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
) -> None:
    """Write a study's report, whatever has been run so far, and print its path."""
    typer.echo(render(load_expansion(study, results), results, margin))


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    tolerate_encoding()
    try:
        app()
    except SkdError as error:
        print(printable(f"skd-report: {error}"), file=sys.stderr)
        sys.exit(2)
