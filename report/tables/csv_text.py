"""Tables as CSV, as they are shown: rounded, with display names. ``data/`` has the numbers."""

from __future__ import annotations

import csv
import io

from report.tables.table import ReportTable

# Signs and spaces of typography, and what programs read in their place.
PLAIN = str.maketrans({"\N{MINUS SIGN}": "-", "\u202f": "", "\u00a0": " "})


def table_csv(table: ReportTable) -> str:
    """Return a table with a heading row. The second lines of entries have columns of their own."""
    columns = [
        (column.label, any(row[place].detail for row in table.rows))
        for place, column in enumerate(table.columns)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for label, detailed in columns for name in _headings(label, detailed)])
    for row in table.rows:
        fields = []
        for (_, detailed), entry in zip(columns, row, strict=True):
            fields += [entry.flat, entry.detail] if detailed else [entry.flat]
        writer.writerow([field.translate(PLAIN) for field in fields])
    return text.getvalue()


def _headings(label: str, detailed: bool) -> list[str]:
    return [label, f"{label} (details)".strip()] if detailed else [label]
