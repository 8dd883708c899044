"""Tables as people read them: display names in place of the sheet's, and no column of one pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from report.names import Names
from report.tables.table import ReportTable, TableColumn

ARROW = " → "


def displayed(table: ReportTable, names: Names, num_pairs: int) -> ReportTable:
    """Return a table with display names.

    Args:
        table: a table whose columns say what they hold.
        names: the display names.
        num_pairs: number of the study's pairs. Of a single pair, the title has the name, and the
            column of pairs is left out.
    """
    writers = [_writer(column, names) for column in table.columns]
    rows = tuple(
        tuple(
            replace(entry, text=write(entry.text)) if write and entry.text else entry
            for write, entry in zip(writers, row, strict=True)
        )
        for row in table.rows
    )
    return _without_pair(replace(table, rows=rows)) if num_pairs == 1 else replace(table, rows=rows)


def _writer(column: TableColumn, names: Names) -> Callable[[str], str] | None:
    """Return how the entries of a column are written; ``None``: as they are."""
    return {
        "pair": lambda text: _pair(text, names),
        "method": names.method,
        "methods": lambda text: ", ".join(map(names.method, text.split(", "))),
        "network": names.network,
    }.get(column.holds)


def _pair(text: str, names: Names) -> str:
    parts = text.split(ARROW)
    return names.pair((parts[0], parts[1])) if len(parts) == 2 else text


def _without_pair(table: ReportTable) -> ReportTable:
    """Move the name of the only pair from the first column to the title."""
    first = {row[0].text for row in table.rows}
    if table.columns[0].holds != "pair" or len(first) != 1 or any(r[0].marks for r in table.rows):
        return table
    return replace(
        table,
        title=f"{table.title}, {first.pop()}",
        columns=table.columns[1:],
        rows=tuple(row[1:] for row in table.rows),
    )
