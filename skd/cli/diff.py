"""The command `skd diff`. What it needs is imported when it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from skd.common import bounds
from skd.common.errors import FAILED, SkdError, suggest
from skd.common.terminal import PlainConsole

if TYPE_CHECKING:
    from report.diff.differences import CellDifference, SetDifference
    from skd.provenance.lookup import ExpandedStudies

FolderArgument = Annotated[
    Path, typer.Argument(help="a results folder, with runs/ and STUDY/specs.json")
]


class DiffError(SkdError):
    """Two result sets cannot be compared. The message says what to do."""


def diff(
    a: FolderArgument,
    b: FolderArgument,
    study: Annotated[
        str | None, typer.Option(help="compare only this study [all that both folders have]")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=bounds.check_finite,
            help="margin of the verdicts in percentage points [the report's]",
        ),
    ] = None,
    equivalence: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="also test with pairs of runs whether each cell is equivalent within ± POINTS of "
            "top-1 accuracy, which decides the exit status",
        ),
    ] = None,
) -> None:
    """Compare two result sets: versions, devices, runs and cells; list the verdicts that flip.

    With --equivalence, the exit status is 0 if all cells with finished runs in both folders are
    equivalent. It is 1 if a cell is undecided or not equivalent, if there is no such cell, or if a
    run is finished in one folder and failed or unreadable in the other.
    """
    from report.diff.differences import compare_sets
    from report.diff.equivalence import assess_equivalence
    from report.diff.equivalence_text import render_equivalence
    from report.findings import read_findings
    from report.statistics.verdicts import DEFAULT_MARGIN

    if equivalence is not None and not 0 < equivalence < math.inf:
        raise DiffError(f"--equivalence {equivalence:g}: allowed: a number of points above 0")
    console, folders = PlainConsole(), (a, b)
    sides = _read_folders(*folders)
    names, complete = _studies_to_compare(sides, folders, study, console)
    equivalent = complete
    for name in names:
        findings = [
            read_findings(
                side.expansions[name], folder, DEFAULT_MARGIN if margin is None else margin
            )
            for side, folder in zip(sides, folders, strict=True)
        ]
        _print_differences(compare_sets(*findings), console)
        if equivalence is not None:
            tested = assess_equivalence(*findings, equivalence)
            console.print(render_equivalence(tested))
            equivalent = equivalent and tested.is_equivalent
    if equivalence is not None and not equivalent:
        raise typer.Exit(FAILED)


def _read_folders(*folders: Path) -> list[ExpandedStudies]:
    """Return the studies of some results folders.

    Raises:
        DiffError: one of them is not a folder.
    """
    from skd.provenance.lookup import ExpandedStudies

    studies = []
    for folder in folders:
        if not folder.is_dir():
            raise DiffError(f"{folder} is not a folder; give two results folders")
        studies.append(ExpandedStudies.read(folder))
    return studies


def _studies_to_compare(
    sides: Sequence[ExpandedStudies],
    folders: tuple[Path, Path],
    study: str | None,
    console: PlainConsole,
) -> tuple[list[str], bool]:
    """Return the names of the studies to compare, and whether that is all that was asked for.

    Prints which studies are left out.

    Raises:
        DiffError: the folders have no study in common, or not the study that is named.
    """
    from skd.provenance.lookup import UNUSABLE

    common = [name for name in sides[0].expansions if name in sides[1].expansions]
    unreadable = sorted({name for side in sides for name in side.unreadable})
    if not common:
        reason = f" ({', '.join(unreadable)}: {UNUSABLE})" if unreadable else ""
        raise DiffError(
            f"{folders[0]} and {folders[1]} have no study in common{reason}; "
            "skd expand STUDY --results FOLDER writes a study's specs.json again"
        )
    if study is not None:
        if study not in common:
            raise DiffError(f"study '{study}' is not in both folders{suggest(study, common)}")
        return [study], True
    if left_out := sorted({*sides[0].expansions, *sides[1].expansions} - {*common}):
        console.print(f"in one folder only, not compared: {', '.join(left_out)}")
    if unreadable:
        console.print(f"specs.json {UNUSABLE}, not compared: {', '.join(unreadable)}")
    return common, not unreadable


def _print_differences(differences: SetDifference, console: PlainConsole) -> None:
    flipped = [cell for cell in differences.cells if cell.verdict_flipped]
    separated = [cell for cell in differences.cells if cell.significant]
    both = sum(cell.difference is not None for cell in differences.cells)
    heading = f": {both} cells with finished runs in both A and B"
    console.print(Text.assemble((differences.study, "bold"), heading))
    console.print(
        f"  runs with the same identity: {differences.equal} equal in all numbers, "
        f"{differences.unequal} not; finished only in A: {differences.only_a}, "
        f"only in B: {differences.only_b}"
    )
    if differences.environment_differences:
        table = Table("", "A", "B", box=None, title="Versions and devices", title_justify="left")
        for name, sides in differences.environment_differences.items():
            table.add_row(name, *("\n".join(f"{v} ({n})" for v, n in s.items()) for s in sides))
        console.print(table)
    console.print(Text(f"Flipped verdicts: {len(flipped)}", style="bold"))
    if flipped:
        console.print(_cells_table(flipped))
    count = (f"Cells that differ: {len(separated)}", "bold")
    console.print(Text.assemble(count, " (paired t test, Holm's p < 0.05 over all)"))
    if separated:
        console.print(_cells_table(separated))


def _cells_table(cells: list[CellDifference]) -> Table:
    from report.formats import ABSENT, mean_and_sd, p_value, signed

    table = Table("pair", "method", "A", "B", "B − A", "p, Holm", "verdict", "", box=None)  # noqa: RUF001
    for cell in cells:
        difference = cell.difference
        verdicts = (
            " → ".join(kind or ABSENT for kind in cell.verdicts) if cell.verdict_flipped else ""
        )
        table.add_row(
            cell.a.pair,
            cell.a.method,
            mean_and_sd(cell.a.last),
            mean_and_sd(cell.b.last),
            signed(difference.mean) if difference else ABSENT,
            p_value(cell.p_holm),
            verdicts,
            "other teacher" if cell.same_teacher is False else "",
        )
    return table
