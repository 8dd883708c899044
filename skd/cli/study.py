"""The commands `skd list` and `skd expand`. Torch is imported when they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument, check_writable_option
from skd.common.terminal import PlainConsole, printable

ListTopic = Literal["networks", "methods", "datasets", "studies"]
LIST_HELP = "what to list: networks, methods, datasets or studies"


def list_(what: Annotated[ListTopic, typer.Argument(metavar="TOPIC", help=LIST_HELP)]) -> None:
    """List the networks, methods, data sets or studies that can be used."""
    from skd.expansion import listing

    tables = {
        "networks": listing.networks_table,
        "methods": listing.methods_table,
        "datasets": listing.datasets_table,
        "studies": listing.studies_table,
    }
    PlainConsole().print(tables[what]())


def expand(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    output: Annotated[
        Path | None,
        typer.Option(
            callback=check_writable_option,
            metavar="FILE",
            help="write the specs to this file and leave the results folder as it is",
        ),
    ] = None,
) -> None:
    """Validate a study and write its resolved specs to RESULTS/STUDY/specs.json."""
    import torch

    from skd.expansion.expand import expand_study
    from skd.study.expansion_files import write_expansion

    torch.set_num_threads(1)  # each network sees one image: more threads would only wait
    expansion = expand_study(study, results)
    path = write_expansion(expansion, results, output)
    runs = {identity for cell in expansion.cells for identity in cell.runs.values()}
    print(
        f"{expansion.study}: {len(expansion.teachers)} teachers, {len(expansion.cells)} cells, "
        f"{len(runs)} runs: {path}"
    )
    for note in expansion.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
