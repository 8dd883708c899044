"""A table as data, before it is HTML, Markdown or LaTeX: all three are written from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class TableEntry:
    """One place of a table. All texts are plain; a writer escapes them.

    Attributes:
        text: what it says.
        detail: a second, smaller line.
        sort: what it is sorted by; none: its text.
        tone: how it is set: ``best`` (bold), a verdict, or both.
        link: the place in the page that has more.
        hint: what hovering shows.
        marks: (kind, text) of what a reader must know of it.
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
        """The text with its marks, where there is no colour."""
        return "; ".join([self.text, *(text for _, text in self.marks)] if self.text else
                         [text for _, text in self.marks])  # fmt: skip


@dataclass(frozen=True)
class TableColumn:
    """A column. Numbers stand right; a filter offers the values that its entries have."""

    title: str
    number: bool = True
    filter: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        key: its file's name, and its place in the page.
        caption: what the numbers are, in a sentence or more.
        rows: the first entry of each is the row's head.
        interactive: whether the page lets it be sorted and filtered.
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
        """Yield place, title and values of the columns to filter by, where there is a choice."""
        for place, column in enumerate(self.columns):
            values = list(dict.fromkeys(row[place].text for row in self.rows))
            if column.filter and len(values) > 1:
                yield place, column.title, values

    @property
    def detailed(self) -> bool:
        """Whether any entry has a second line."""
        return any(entry.detail for row in self.rows for entry in row)
