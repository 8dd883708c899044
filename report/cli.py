"""The command ``skd-report STUDY``: renders what the store holds now, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from report.published import PublishedError
from report.render import render
from skd.study import StudyError, load_expansion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="A study's name, or the path of its sheet.")],
    results: Annotated[
        Path, typer.Option(envvar="SKD_RESULTS", help="The folder that holds the results.")
    ] = Path("results"),
) -> None:
    """Write a study's report, whatever has been run so far, and print its path."""
    try:
        page = render(load_expansion(study, results), results)
    except (StudyError, PublishedError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: the report cannot be written: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(page)


def main() -> None:
    """Run the command line."""
    app()
