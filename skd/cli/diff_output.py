"""What `skd diff` prints of a study's two result sets. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from skd.common.terminal import PlainConsole

if TYPE_CHECKING:
    from report.diff.differences import CellDifference, SetDifference
    from report.findings import Findings


def print_runs(
    differences: SetDifference, a: Findings, b: Findings, show_all: bool, console: PlainConsole
) -> None:
    """Print the numbers of runs, how far apart they are, and versions and devices."""
    from report.diff.distances import measure_distances
    from report.diff.distances_text import render_distances

    both = sum(cell.difference is not None for cell in differences.cells)
    heading = f": {both} cells with finished runs in both A and B"
    console.print(Text.assemble((differences.study, "bold"), heading))
    console.print(
        f"  runs with the same identity: {differences.equal} equal in all numbers, "
        f"{differences.unequal} not; finished only in A: {differences.only_a}, "
        f"only in B: {differences.only_b}"
    )
    overall, groups = measure_distances(a, b)
    test_images = a.expansion.images.test_images
    for part in render_distances(overall, groups, test_images, show_all):
        console.print(part)
    if differences.environment_differences:
        table = Table("", "A", "B", box=None, title="Versions and devices", title_justify="left")
        for name, sides in differences.environment_differences.items():
            table.add_row(name, *("\n".join(f"{v} ({n})" for v, n in s.items()) for s in sides))
        console.print(table)


def print_cells(differences: SetDifference, console: PlainConsole) -> None:
    """Print the cells whose verdict flips, and those whose accuracies differ."""
    flipped = [cell for cell in differences.cells if cell.verdict_flipped]
    separated = [cell for cell in differences.cells if cell.significant]
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
