"""A benchmark's result as text of 80 columns. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.results import BenchmarkResult, BenchmarkRow, ViewsCost
from benchmarks.side_names import LIVE, OURS, PLAIN

WIDTH = 80
INDENT = "    "
MIB, GIB = 2**20, 2**30
COLUMNS = ("side", "lanes", "ms/step", "steps/s", "x plain [95 %]", "GiB", "rounds")
NOT_IN_DETAILS = ("lanes",)


def row_line(row: BenchmarkRow) -> str:
    """Return a row as one line, which is printed when it has been measured."""
    name = f"{row.pair}/{row.method}, {_name(row)}"
    if row.skipped:
        return f"{name}: {row.failure}"
    if row.failure:
        return f"{name}: {'not available' if row.unfit else 'FAILED'}: {row.failure}"
    epoch = "" if row.seconds_per_epoch is None else f", {_seconds(row.seconds_per_epoch)} an epoch"
    ratio = _ratio(row)
    times = f", {ratio} times as fast as plain" if ratio else ""
    return (
        f"{name}: {_seconds(row.seconds_per_step)} a step, {row.images_per_second:.0f} images/s"
        f"{epoch}{times}"
    )


def rows_lines(rows: Sequence[BenchmarkRow], long: bool = False) -> Iterator[str]:
    """Yield a heading and a table for each case.

    The reasons of failures follow each table. With ``long``, further numbers of each row and its
    side's description follow too.
    """
    for (pair, method), group in groupby(rows, key=lambda row: (row.pair, row.method)):
        case = [*group]
        yield from ("", f"{pair}, {method}", *_table(case))
        for row in case:
            if row.failure and not row.skipped:
                yield from _wrapped(f"{_name(row)}: {row.failure}")
            elif long and not row.failure:
                yield from _wrapped(f"{_name(row)}: {', '.join(_details(row))}")


def views_lines(rows: Sequence[ViewsCost]) -> Iterator[str]:
    """Yield the cost of the teachers' views, a paragraph for each teacher."""
    yield from ("", "Teachers' logits on every view of every training image, once per teacher")
    for row in rows:
        if row.failure:
            yield from _wrapped(f"{row.teacher}: FAILED: {row.failure}")
            continue
        about = "about " if row.extrapolated else ""
        pays = "; ".join(f"{key}: {_runs(runs)}" for key, runs in row.pays_after_runs.items())
        yield from _wrapped(
            f"{row.teacher}: {row.views} views, {about}{_seconds(row.seconds)} to build, "
            f"{row.bytes / MIB:,.0f} MiB"
            + (f"; number of runs after which storing them saves time: {pays}" if pays else "")
        )


def comparison_notes(comparison: BenchmarkResult) -> Iterator[str]:
    """Yield lines that explain the numbers."""
    for note in _notes(comparison):
        yield from textwrap.wrap(note, WIDTH, break_long_words=False, break_on_hyphens=False)


def _notes(comparison: BenchmarkResult) -> Iterator[str]:
    threads = "" if comparison.device == "cuda" else f", {comparison.threads} threads a side"
    yield f"device: {comparison.device_name}{threads}"
    for peak in comparison.peaks.values():
        yield (
            f"peak in {peak.precision}: {2e-9 * peak.multiply_adds_per_second:,.0f} GFLOP/s, "
            f"measured here: {peak.measured_by}"
        )
    yield (
        f"{OURS}: this project's training; {LIVE}: the same with the teacher in each step; "
        f"{PLAIN}: the common training loop"
    )
    yield (
        "ms/step: one step on every lane, median over rounds, in which the sides take turns; "
        "steps/s: sum over the lanes; x plain: images/s relative to the plain loop in the same "
        "rounds; GiB: peak memory"
    )
    if any(row.how.get("teacher_weights") == "random" for row in comparison.rows):
        yield "teachers that are not in the store have random weights, which take the same time"


def _table(rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    cells = [COLUMNS, *map(_cells, rows)]
    whole = [row for row in cells if len(row) == len(COLUMNS)]
    widths = [max(len(row[i]) for row in whole) for i in range(len(COLUMNS))]
    widths[:2] = [max(len(row[i]) for row in cells) for i in (0, 1)]
    for row in cells:
        name, *others = row
        if len(row) < len(COLUMNS):  # a reason instead of numbers
            lanes, words = others
            yield f"{name:<{widths[0]}}  {lanes:>{widths[1]}}  {words}"
            continue
        numbers = [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{name:<{widths[0]}}", *numbers]).rstrip()


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    lanes = str(row.lanes)
    if row.skipped:
        return row.name, lanes, row.failure
    if row.failure:
        return row.name, lanes, "not available" if row.unfit else "FAILED"
    memory = row.peak_memory_bytes
    return (
        row.name,
        lanes,
        _digits(1000 * row.seconds_per_step),
        _digits(row.steps_per_second),
        _ratio(row),
        "" if memory is None else f"{memory / GIB:.2f}",
        str(len(row.rounds)),
    )


def _details(row: BenchmarkRow) -> Iterator[str]:
    yield f"{row.images_per_second:,.0f} images/s"
    if row.seconds_per_epoch is not None:
        yield f"{_seconds(row.seconds_per_epoch)} an epoch"
        yield f"{100 * row.evaluation_share:.1f} % of it evaluation"
    if row.share_of_peak is not None:
        yield f"{100 * row.share_of_peak:.1f} % of the peak"
    for key, value in row.how.items():
        if value is not None and key not in NOT_IN_DETAILS:
            yield f"{key.replace('_', ' ')} {value}"


def _name(row: BenchmarkRow) -> str:
    return row.name if row.lanes == 1 else f"{row.name}, {row.lanes} lanes"


def _ratio(row: BenchmarkRow) -> str:
    """Return how many times as fast as the plain loop a row is; empty for the plain loop."""
    if row.speed_up is None or row.side == PLAIN:
        return ""
    value, low, high = row.speed_up.value, row.speed_up.low, row.speed_up.high
    interval = "" if low is None else f" [{_digits(low)}, {_digits(high)}]"
    return f"{_digits(value)}{interval}"


def _digits(value: float) -> str:
    """Return a number with three significant digits, and all digits before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


def _runs(runs: float | None) -> str:
    return "never" if runs is None else f"{runs:.2g}"
