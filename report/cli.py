"""The command ``skd-report STUDY``: renders what the store holds now, finished or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from report.render import render
from report.verdicts import MARGIN
from skd.errors import UNWRITABLE, SkdError, described, show_warnings_as_lines
from skd.study import load_expansion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
RESULTS = Path("results")


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")],
    results: Annotated[Path, typer.Option(help="the folder that holds the results")] = RESULTS,
    margin: Annotated[
        float, typer.Option(min=0, help="of equivalence, in points: within it is reproduced")
    ] = MARGIN,
) -> None:
    """Write a study's report, whatever has been run so far, and print its path."""
    typer.echo(render(load_expansion(study, results), results, margin))


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    show_warnings_as_lines("skd-report")
    try:
        app()
    except SkdError as error:
        print(f"skd-report: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"skd-report: {described(error)}", file=sys.stderr)
        sys.exit(1)
