"""A table as data. HTML, Markdown and LaTeX are written from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class TableEntry:
    """One entry of a table. All texts are plain; the writers escape them.

    Attributes:
        text: the main text.
        detail: a second, smaller line.
        sort: the value to sort by; ``None``: sort by the text.
        tone: the style: ``best`` (bold), a verdict, or both, separated by a space.
        link: id of the place in the page with the details.
        hint: text that is shown on hovering.
        marks: reservations, each as (kind, text).
    """

    text: str
    detail: str = ""
    sort: float | None = None
    tone: str = ""
    link: str = ""
    hint: str = ""
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def flat(self) -> str:
        """The text and its marks as plain text, for formats without colours."""
        marks = [text for _, text in self.marks]
        return "; ".join([self.text, *marks] if self.text else marks)


@dataclass(frozen=True)
class TableColumn:
    """A column.

    Attributes:
        title: its heading; may have several lines.
        number: whether its entries are aligned to the right.
        filter: whether the page offers a menu of its values to filter rows by.
        holds: what its entries name by their names in the sheet, so that readers can be shown
            display names (`report.tables.displayed`).
        begins_group: whether it is set apart from the columns before it.
        across: the heading of its row in the transposed table; empty: the title in one line.
    """

    title: str
    number: bool = True
    filter: bool = False
    holds: Literal["", "pair", "method", "methods", "network"] = ""
    begins_group: bool = False
    across: str = ""

    @property
    def label(self) -> str:
        """The heading in one line."""
        return self.title.replace("-\n", "").replace("\n", " ")


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        key: the name of its files and its id in the page.
        caption: the definition of its numbers, in whole sentences.
        rows: each with one entry per column; the first entry is the row's heading.
        interactive: whether readers of the page can sort and filter the rows.
        groups: indices of the rows that begin a group; a rule stands above each.
        narrow: whether the table is to fit a column of a paper.
    """

    key: str
    title: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    interactive: bool = False
    groups: tuple[int, ...] = ()
    narrow: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.key}: {len(row)} entries in {len(self.columns)} columns"
                )

    def choices(self) -> Iterator[tuple[int, str, list[str]]]:
        """Yield index, title and values of each filter column with more than one value."""
        for index, column in enumerate(self.columns):
            values = list(dict.fromkeys(row[index].text for row in self.rows))
            if column.filter and len(values) > 1:
                yield index, column.label, values

    @property
    def detailed(self) -> bool:
        """Whether any entry has a second line."""
        return any(entry.detail for row in self.rows for entry in row)


def transposed(table: ReportTable) -> ReportTable:
    """Return a table of numbers with rows and columns exchanged, and their groups with them."""
    head, *columns = table.columns
    titles = [TableEntry(column.across or column.label) for column in columns]
    return replace(
        table,
        columns=(
            replace(head, title=""),
            *(
                TableColumn(_heading(row[0]), begins_group=index in table.groups)
                for index, row in enumerate(table.rows)
            ),
        ),
        rows=tuple(
            (title, *(row[place] for row in table.rows))
            for place, title in enumerate(titles, start=1)
        ),
        groups=tuple(place for place, column in enumerate(columns) if column.begins_group),
    )


def _heading(entry: TableEntry) -> str:
    return f"{entry.text}\n({entry.detail})" if entry.detail else entry.text
