"""`skd diff`: two result sets of a study compared. What it needs is imported once it runs."""

from __future__ import annotations

import math
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

Folder = Annotated[Path, typer.Argument(help="a results folder, with runs/ and STUDY/specs.json")]


class DiffError(SkdError):
    """Two result sets cannot be compared. Says what to do."""


def diff(
    a: Folder,
    b: Folder,
    study: Annotated[
        str | None, typer.Option(help="only this study [all that both folders have]")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, callback=bounds.check_finite, help="of the verdicts, in points [the report's]"
        ),
    ] = None,
    equivalence: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="also test, by pairs of runs, whether each cell is equivalent within ± POINTS of "
            "top-1 accuracy; see the exit status",
        ),
    ] = None,
) -> None:
    """Compare two result sets: versions and devices, runs, cells; list the verdicts that flip.

    With --equivalence, the exit status is 0 if all cells with finished runs in both folders are
    equivalent, and 1 otherwise: if a cell is not equivalent or undecided, if there is no such cell,
    or if a run that is finished in one folder failed or cannot be read in the other.
    """
    from report.diff.differences import compare_sets
    from report.diff.equivalence import assess_equivalence
    from report.diff.equivalence_text import render_equivalence
    from report.findings import read_findings
    from report.statistics.verdicts import DEFAULT_MARGIN
    from skd.provenance.lookup import UNUSABLE, ExpandedStudies

    if equivalence is not None and not 0 < equivalence < math.inf:
        raise DiffError(f"--equivalence {equivalence:g}: allowed: a number of points above 0")
    sides = []
    for folder in (a, b):
        if not folder.is_dir():
            raise DiffError(f"{folder} is no folder; give two results folders")
        sides.append(ExpandedStudies.of(folder))
    common = [name for name in sides[0].expansions if name in sides[1].expansions]
    unreadable = sorted({name for side in sides for name in side.unreadable})
    if not common:
        why = f" ({', '.join(unreadable)}: {UNUSABLE})" if unreadable else ""
        raise DiffError(
            f"{a} and {b} have no study in common{why}; skd expand STUDY --results FOLDER makes a "
            "study's specs.json anew"
        )
    left_out = sorted({*sides[0].expansions, *sides[1].expansions} - {*common})
    if study is not None and study not in common:
        raise DiffError(f"study '{study}' is not in both folders{suggest(study, common)}")
    console = PlainConsole()
    if study is None and left_out:
        console.print(f"in one folder only, not compared: {', '.join(left_out)}")
    if study is None and unreadable:
        console.print(f"specs.json {UNUSABLE}, not compared: {', '.join(unreadable)}")
    equivalent = study is not None or not unreadable
    for name in [study] if study else common:
        found = [
            read_findings(
                side.expansions[name], folder, DEFAULT_MARGIN if margin is None else margin
            )
            for side, folder in zip(sides, (a, b), strict=True)
        ]
        _show(compare_sets(*found), console)
        if equivalence is not None:
            tested = assess_equivalence(*found, equivalence)
            console.print(render_equivalence(tested))
            equivalent = equivalent and tested.shown
    if equivalence is not None and not equivalent:
        raise typer.Exit(FAILED)


def _show(found: SetDifference, console: PlainConsole) -> None:
    flipped = [cell for cell in found.cells if cell.flipped]
    separated = [cell for cell in found.cells if cell.separated]
    both = sum(cell.difference is not None for cell in found.cells)
    said = f": {both} cells with finished runs in both A and B"
    console.print(Text.assemble((found.study, "bold"), said))
    console.print(
        f"  runs of one identity: {found.equal} equal in all numbers, {found.unequal} not; "
        f"finished only in A: {found.only_a}, only in B: {found.only_b}"
    )
    if found.environment_differences:
        table = Table("", "A", "B", box=None, title="What they were run with", title_justify="left")
        for name, sides in found.environment_differences.items():
            table.add_row(name, *("\n".join(f"{v} ({n})" for v, n in s.items()) for s in sides))
        console.print(table)
    console.print(Text(f"Flipped verdicts: {len(flipped)}", style="bold"))
    if flipped:
        console.print(_cells(flipped))
    differ = (f"Cells that differ: {len(separated)}", "bold")
    console.print(Text.assemble(differ, " (paired t test, Holm's p < 0.05 over all)"))
    if separated:
        console.print(_cells(separated))


def _cells(cells: list[CellDifference]) -> Table:
    from report.formats import ABSENT, mean_and_sd, p_value, signed

    table = Table("pair", "method", "A", "B", "B − A", "p, Holm", "verdict", "", box=None)  # noqa: RUF001
    for cell in cells:
        difference = cell.difference
        verdicts = " → ".join(kind or ABSENT for kind in cell.verdicts) if cell.flipped else ""
        table.add_row(
            cell.a.pair,
            cell.a.method,
            mean_and_sd(cell.a.last),
            mean_and_sd(cell.b.last),
            signed(difference.mean) if difference else ABSENT,
            p_value(cell.p_holm),
            verdicts,
            "other teacher" if cell.teachers is False else "",
        )
    return table
