"""The main table as Markdown, from the same data as the HTML."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, number, signed, spread
from report.literature import PublishedValue
from report.tables import PairTable, Row

HEADER = ("Method", "Last epoch", "Best epoch", "Runs", "Gain over student alone", "Published")


def markdown(
    title: str,
    sentences: Sequence[str],
    tables: Sequence[PairTable],
    *,
    evaluated: str,
    published: bool,
) -> str:
    """Return title, answer and main table as one Markdown page.

    Args:
        title: the study's.
        sentences: the answer.
        tables: one a pair.
        evaluated: the split that accuracy is measured on.
        published: whether there are published values to set beside these.
    """
    width = len(HEADER) if published else len(HEADER) - 1
    parts = [f"# {_plain(title)}", " ".join(map(_plain, sentences))]
    parts.append(
        f"Top-1 accuracy on the {evaluated} images in percent: mean ± sample standard deviation "
        "over seeds. Gain: last epoch, paired by seed, with its 95 % interval."
    )
    for table in tables:
        teacher = "not at hand" if table.teacher_top1 is None else number(table.teacher_top1)
        parts.append(f"## {_plain(table.pair)}\n\nTeacher, measured here: {teacher}.")
        rows = [HEADER, tuple("---" for _ in HEADER), *map(_cells, table.rows)]
        parts.append("\n".join("| " + " | ".join(map(_plain, row[:width])) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def published_text(value: PublishedValue | None) -> str:
    """Return a published value with its protocol."""
    if value is None:
        return "not available"
    runs = f", {value.n_runs} runs" if value.n_runs else ""
    epoch = "epoch unstated" if value.reported_epoch == "unstated" else value.reported_epoch
    return f"{number(value.top1)} ({epoch}{runs})"


def gain_text(row: Row) -> str:
    """Return a gain with its interval, or why there is none."""
    if row.is_control:
        return "reference"
    if row.gain is None:
        return ABSENT
    return f"{signed(row.gain.mean)} ({interval(row.gain)})"


def _cells(row: Row) -> tuple[str, ...]:
    marks = ", ".join([f"{row.done} of {row.expected}", *(mark.text for mark in row.marks)])
    return (
        row.method,
        spread(row.last),
        spread(row.best),
        marks,
        gain_text(row),
        published_text(row.published),
    )


def _plain(text: str) -> str:
    """Return text that cannot break out of its cell, nor become HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
