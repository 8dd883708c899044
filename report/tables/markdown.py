"""Tables as GitHub-flavoured Markdown."""

from __future__ import annotations

from report.tables.table import ReportTable, TableEntry
from skd.common.terminal import printable


def table_markdown(table: ReportTable) -> str:
    """Return a table with its title and caption as a section of a Markdown page."""
    head = [escape_markdown(column.title).replace("\n", "<br>") for column in table.columns]
    align = ["---:" if column.number else "---" for column in table.columns]
    rows = [head, align]
    for place, row in enumerate(table.rows):
        if place in table.groups:  # Markdown has no rules; an empty row separates groups
            rows.append([""] * len(row))
        rows.append([_entry(entry) for entry in row])
    parts = [f"## {escape_markdown(table.title)}", escape_markdown(table.caption)]
    parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Return text in which no character is HTML, Markdown or a table separator."""
    flat = "\n".join(" ".join(printable(line).split()) for line in text.split("\n"))
    for mark in "\\|*_`[~$#":
        flat = flat.replace(mark, f"\\{mark}")
    return flat.replace("<", "&lt;").replace(">", "&gt;")


def _entry(entry: TableEntry) -> str:
    text = escape_markdown(entry.flat).replace("\n", " ")
    if "best" in entry.tone.split():
        text = f"**{text}**"
    return f"{text}<br>{escape_markdown(entry.detail)}" if entry.detail else text
