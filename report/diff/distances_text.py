"""What `skd diff` prints of the distance between runs with the same identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from report.diff.distances import Distance
from report.formats import number, plural, signed

SHOWN = 10  # cells in the table, unless all are asked for


def render_distances(
    overall: Distance | None, groups: Sequence[Distance], test_images: int, show_all: bool
) -> Iterator[RenderableType]:
    """Yield the lines and the table, for a terminal; nothing if no run is in both sets.

    Args:
        overall: the distance over all runs.
        groups: the distances of teachers and cells, those furthest apart first.
        test_images: the number of test images, which is the resolution of an accuracy.
        show_all: whether to list every teacher and cell with a difference.
    """
    if overall is not None and overall.unequal:
        yield Text(_summary(overall, test_images))
    differing = [group for group in groups if group.unequal]
    if not differing:
        return
    shown = differing if show_all else differing[:SHOWN]
    table = Table(
        box=None,
        title="Furthest apart, same identity: top-1 in points",
        title_justify="left",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("", overflow="fold", min_width=12)
    for name in ("not equal", "mean |B \N{MINUS SIGN} A|", "largest", "mean B \N{MINUS SIGN} A"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in shown:
        name = group.name.replace("--", " → ").replace("/", " ")
        unequal = f"{group.unequal} of {group.runs}"
        change = signed(group.mean_change)
        table.add_row(name, unequal, number(group.mean), number(group.largest), change)
    yield table
    if hidden := len(differing) - len(shown):
        yield Text(f"… and {hidden} more with smaller differences: --all lists them")


def _summary(overall: Distance, test_images: int) -> str:
    largest = f"{number(overall.largest)} ({overall.furthest.label})"
    if not overall.largest:
        return (
            f"  all {plural(overall.runs, 'run')} with the same identity have the same top-1 at "
            "the last epoch; other numbers differ"
        )
    return (
        f"  top-1 at the last epoch of {plural(overall.runs, 'run')} with the same identity: "
        f"|B \N{MINUS SIGN} A| is {number(overall.mean)} points on average and at most {largest}; "
        f"the mean of B \N{MINUS SIGN} A is {signed(overall.mean_change)}; one test image is "
        f"{100 / test_images:.2g} points"
    )
