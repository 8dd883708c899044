"""The output of `skd status` for a terminal of 80 columns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import datetime

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from skd.common.terminal import format_duration
from skd.jobs.overview import STATES, OverviewRow, StudyOverview

NAME_WIDTH = 38  # a name up to this width is not broken; a long list of states is


def render_overview(overview: StudyOverview, seconds: float | None) -> Group:
    """Return the overview: a table of cells, grouped by pair, then the lines and the end.

    Args:
        overview: the study.
        seconds: the time to its end; ``None`` if it is not known.
    """
    parts = [_table(overview), *(Text(line, overflow="fold") for line in overview.lines)]
    if seconds is not None:
        end = datetime.fromtimestamp(time.time() + seconds)
        devices = f"{overview.running_jobs} device{'s' if overview.running_jobs > 1 else ''}"
        parts.append(
            Text(f"about {format_duration(seconds)} to the end on {devices}: {end:%a %d %b, %H:%M}")
        )
    return Group(*parts)


def _table(overview: StudyOverview) -> Table:
    rows = list(_table_rows(overview))
    longest = max((len(name) for name, *_ in rows), default=0)
    table = Table(title=overview.title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("cell", overflow="fold", no_wrap=longest <= NAME_WIDTH)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("" if overview.finished else "not done", overflow="fold")
    table.add_column("last top-1, %", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*_values("all runs", OverviewRow("all runs", overview.totals)))
    return table


def _table_rows(overview: StudyOverview) -> Iterator[tuple[str, ...]]:
    """Yield the rows. A pair with one cell, such as the student alone, needs no heading."""
    pairs: dict[str, list[OverviewRow]] = {}
    for row in overview.rows:
        if row.pair is None:
            yield _values(row.key, row)
        else:
            pairs.setdefault(row.pair, []).append(row)
    for pair, rows in pairs.items():
        if len(rows) == 1:
            yield _values(rows[0].key, rows[0])
            continue
        yield (pair,)
        yield from (_values(f"  {row.name}", row) for row in rows)


def _values(name: str, row: OverviewRow) -> tuple[str, str, str, str]:
    """Return a name, how many runs are done, the states of the others, and the accuracy."""
    done, total = row.counts.get("done", 0), sum(row.counts.values())
    others = [
        f"{row.counts[state]} {word}"
        for state, word in STATES.items()
        if state != "done" and row.counts.get(state)
    ]
    separator = ", " if len(others) < 3 else ",\n"
    return name, f"{done}/{total}", separator.join(others), accuracy_text(row.accuracies)


def accuracy_text(accuracies: tuple[float, ...]) -> str:
    """Return the mean of accuracies and, of at least two, their sample standard deviation."""
    if not accuracies:
        return ""
    mean = f"{statistics.fmean(accuracies):.2f}"
    return f"{mean} ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else mean
