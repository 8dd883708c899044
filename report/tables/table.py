"""A table as data. HTML, Markdown and LaTeX are written from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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
    """

    title: str
    number: bool = True
    filter: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        key: the name of its files and its id in the page.
        caption: the definition of its numbers, in whole sentences.
        rows: each with one entry per column; the first entry is the row's heading.
        interactive: whether readers of the page can sort and filter the rows.
    """

    key: str
    title: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    interactive: bool = False

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
                yield index, column.title, values

    @property
    def detailed(self) -> bool:
        """Whether any entry has a second line."""
        return any(entry.detail for row in self.rows for entry in row)
