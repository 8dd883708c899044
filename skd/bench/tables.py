"""A comparison as tables for a terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from skd.bench.results import Comparison, Row, TeacherViews
from skd.bench.sides import LIVE, OURS, PLAIN

SHOWN_ELSEWHERE = ("lanes",)
MIB = 2**20


def line(row: Row) -> str:
    """Return a row in a line, as it is told when it is measured."""
    name = f"{row.pair}/{row.method}, {row.side}"
    if row.failure:
        return f"{name}: {'not there' if row.unfit else 'FAILED'}: {row.failure}"
    return (
        f"{name}: {_seconds(row.seconds_per_step)} a step, {row.images_per_second:.0f} images/s, "
        f"{_seconds(row.seconds_per_epoch)} an epoch{_times(row)}"
    )


def rows_table(rows: Sequence[Row]) -> Table:
    """Return the table of all rows, a section a case."""
    table = Table(box=box.SIMPLE_HEAD, title="Training steps, side by side", title_justify="left")
    for name in ("pair", "method", "side"):
        table.add_column(name)
    for name in ("lanes", "s/step", "images/s", "s/epoch", "evaluation", "memory", "of peak"):
        table.add_column(name, justify="right")
    table.add_column("images/s over plain", justify="right")
    table.add_column("how", overflow="fold")
    last = None
    for row in rows:
        if last not in (None, (row.pair, row.method)):
            table.add_section()
        case = ("", "") if last == (row.pair, row.method) else (row.pair, row.method)
        last = (row.pair, row.method)
        table.add_row(*case, row.side, *_numbers(row), _how(row))
    return table


def views_table(rows: Sequence[TeacherViews]) -> Table:
    """Return the table of what the teachers' views take."""
    title = "Teachers' logits on every view of every training image, once a teacher"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("teacher")
    for name in ("views", "to build", "size"):
        table.add_column(name, justify="right")
    table.add_column("pays after runs", overflow="fold")
    for row in rows:
        if row.failure:
            table.add_row(row.teacher, "", "FAILED", "", row.failure)
            continue
        pays = [f"{key}: {_runs(runs)}" for key, runs in row.pays_after_runs.items()]
        about = "about " if row.extrapolated else ""
        built = f"{about}{_seconds(row.seconds)}"
        table.add_row(row.teacher, str(row.views), built, _bytes(row.bytes), ", ".join(pays))
    return table


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield lines on what the numbers are."""
    threads = "" if comparison.device == "cuda" else f", {comparison.threads} threads a side"
    yield f"device: {comparison.device_name}{threads}"
    for peak in comparison.peaks.values():
        yield (
            f"peak in {peak.precision}: {2e-9 * peak.multiply_adds_per_second:,.0f} GFLOP/s, "
            f"measured here: {peak.measured_by}"
        )
    yield (
        f"{OURS}: as this project trains; {LIVE}: the same with the teacher in each step; "
        f"{PLAIN}: the field's common loop"
    )
    yield (
        "s/step: the median over rounds, in each of which the sides take turns; "
        "s/epoch: of one run, an evaluation included (its share beside it)"
    )
    if any(row.how.get("teacher_weights") == "random" for row in comparison.rows):
        yield "teachers that the store lacks have random weights here: the time is the same"


def _numbers(row: Row) -> tuple[str, ...]:
    if row.failure:
        return "", "-" if row.unfit else "FAILED", *[""] * 6
    share = f"{100 * row.share_of_peak:.1f} %" if row.share_of_peak else ""
    return (
        str(row.lanes),
        f"{row.seconds_per_step:.4g}",
        f"{row.images_per_second:,.0f}",
        f"{row.seconds_per_epoch:.4g}",
        f"{100 * row.evaluation_share:.0f} %",
        _bytes(row.peak_memory_bytes),
        share,
        _times(row).removeprefix(", ").removesuffix(" as plain"),
    )


def _how(row: Row) -> str:
    if row.failure:
        return row.failure
    told = {key: value for key, value in row.how.items() if key not in SHOWN_ELSEWHERE}
    return ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)


def _times(row: Row) -> str:
    """Return how many times as fast as the plain loop a row is, where it is another."""
    if row.speed_up is None or row.side == PLAIN:
        return ""
    value, low, high = row.speed_up.value, row.speed_up.low, row.speed_up.high
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f", {value:.2f}{interval} times as plain"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / MIB:,.0f} MiB"


def _runs(runs: float | None) -> str:
    return "never" if runs is None else f"{runs:.2g}"
