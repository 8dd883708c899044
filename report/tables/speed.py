"""The table of the training loop's speed compared with other loops, as measured by `skd bench`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.results import BenchError, BenchmarkResult, BenchmarkRow, read_benchmark
from benchmarks.side_names import OURS, SIDES_WITH_VARIANTS
from benchmarks.variants import DEFAULT_VARIANT
from report.formats import mebibytes, number
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.expansion import Expansion

BENCH_FOLDER = "bench"
SIDE_LABELS = {
    "skd": "ours",
    "skd-live": "ours, live teacher",
    "plain": "plain loop",
    "mdistiller": "mdistiller",
}


def read_benchmarks(results: Path, expansion: Expansion) -> tuple[list[BenchmarkResult], list[str]]:
    """Return the comparisons of a study's data set, oldest first, and the unreadable files."""
    comparisons, problems = [], []
    for path in sorted((results / BENCH_FOLDER).glob("*.json")):
        try:
            comparison = read_benchmark(path)
        except BenchError as error:
            problems.append(str(error))
            continue
        if comparison.dataset.name == expansion.dataset.name:
            comparisons.append(comparison)
    return sorted(comparisons, key=lambda comparison: comparison.made_at), problems


def speed_table(comparisons: Iterable[BenchmarkResult], expansion: Expansion) -> ReportTable | None:
    """Return the table of the study's pairs, or ``None`` without measurements.

    It has a row for each machine, pair, method, side, variant of our side, and number of lanes.
    """
    pairs = {cell.pair for cell in expansion.cells}
    rows: dict[tuple[str, ...], tuple[TableEntry, ...]] = {}
    versions = set()
    for comparison in comparisons:
        machine = comparison.device_name
        if comparison.device == "cpu":
            machine += f", {comparison.threads} threads"
        for row in comparison.rows:
            if row.pair in pairs and row.seconds_per_step is not None:
                # A later measurement replaces an earlier one.
                key = (machine, row.pair, row.method, row.side, _variant(row), str(row.lanes))
                rows[key] = _entries(machine, row, _break_even_runs(comparison, row))
                versions.add(f"torch {comparison.environment.get('torch', 'unknown')}")
    if not rows:
        return None
    return ReportTable(
        key="speed",
        title="Speed of the training loop",
        caption="Measured by `skd bench`, which alternates between the sides "
        f"({', '.join(sorted(versions))}). The plain loop is common practice: images are loaded "
        "with PIL in worker processes, the teacher runs in every step, execution is eager, and "
        "metrics are read at every step. An epoch is its steps and one evaluation. The interval of "
        "a ratio is over rounds. The peak is that of a large matrix product, measured on the same "
        "machine. Storing a teacher's outputs costs forward passes once; the last column is the "
        "number of runs after which storing saves time.",
        columns=(
            TableColumn("Machine", number=False, filter=True),
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, filter=True, holds="method"),
            TableColumn("Side", number=False, filter=True),
            TableColumn("Lanes"),
            TableColumn("A step\n(ms)"),
            TableColumn("Images/s"),
            TableColumn("An epoch\n(s)"),
            TableColumn("Evaluation\n(%)"),
            TableColumn("Peak\nmemory"),
            TableColumn("Share of\npeak (%)"),
            TableColumn("Over the\nplain loop"),
            TableColumn("Pays after\n(runs)"),
        ),
        rows=tuple(rows.values()),
        interactive=True,
    )


def _entries(
    machine: str, row: BenchmarkRow, break_even_runs: float | None
) -> tuple[TableEntry, ...]:
    speed = row.speed_up
    interval = f"{speed.low:.2f} to {speed.high:.2f}" if speed and speed.low else ""
    return (
        TableEntry(machine),
        TableEntry(row.pair.replace("--", " → ")),
        TableEntry(row.method),
        TableEntry(_side(row)),
        TableEntry(str(row.lanes), sort=row.lanes),
        _number(row.seconds_per_step, 1, 1000),
        _number(row.images_per_second, 0),
        _number(row.seconds_per_epoch, 1),
        _number(row.evaluation_share, 1, 100),
        TableEntry(
            "" if row.peak_memory_bytes is None else mebibytes(row.peak_memory_bytes),
            sort=row.peak_memory_bytes,
        ),
        _number(row.share_of_peak, 1, 100),
        TableEntry(f"{speed.value:.2f}x", detail=interval, sort=speed.value)
        if speed
        else TableEntry(""),
        _number(break_even_runs, 2),
    )


def _side(row: BenchmarkRow) -> str:
    """Return the side's label, with its variant if the file contains it."""
    side = SIDE_LABELS.get(row.side, row.side)
    return f"{side}, {row.variant}" if row.variant else side


def _variant(row: BenchmarkRow) -> str:
    if row.side not in SIDES_WITH_VARIANTS:
        return ""
    return row.variant or DEFAULT_VARIANT  # older files contain no variant


def _number(value: float | None, digits: int, factor: float = 1.0) -> TableEntry:
    if value is None:
        return TableEntry("")
    return TableEntry(number(factor * value, digits), sort=factor * value)


def _break_even_runs(comparison: BenchmarkResult, row: BenchmarkRow) -> float | None:
    """Return after how many runs storing the teacher's outputs saves time, or ``None``."""
    if row.side != OURS or not _is_first_of_ours(comparison, row):
        return None
    for views in comparison.teacher_views:
        if views.teacher == row.teacher:
            return views.pays_after_runs.get(f"{row.pair}/{row.method}")
    return None


def _is_first_of_ours(comparison: BenchmarkResult, row: BenchmarkRow) -> bool:
    """Whether a row has the configuration for which the break-even was computed.

    That is the first successful configuration of our side.
    """
    ours = (other for other in comparison.rows if other.side == OURS and not other.failure)
    first = next(other for other in ours if (other.pair, other.method) == (row.pair, row.method))
    return (_variant(row), row.lanes) == (_variant(first), first.lanes)
