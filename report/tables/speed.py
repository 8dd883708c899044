"""How fast our training loop is, against others on the same machine: what `skd bench` measured."""

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
    """Return the comparisons of a study's data set, oldest first, and why others cannot be read."""
    found, problems = [], []
    for path in sorted((results / BENCH_FOLDER).glob("*.json")):
        try:
            comparison = read_benchmark(path)
        except BenchError as error:
            problems.append(str(error))
            continue
        if comparison.dataset.name == expansion.dataset.name:
            found.append(comparison)
    return sorted(found, key=lambda comparison: comparison.made_at), problems


def speed_table(comparisons: Iterable[BenchmarkResult], expansion: Expansion) -> ReportTable | None:
    """Return the table of the study's pairs, or none where nothing was measured.

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
                # Of two measurements of the same, the later one.
                key = (machine, row.pair, row.method, row.side, _variant(row), str(row.lanes))
                rows[key] = _entries(machine, row, _pays(comparison, row))
                versions.add(f"torch {comparison.environment.get('torch', 'unknown')}")
    if not rows:
        return None
    return ReportTable(
        key="speed",
        title="Speed of the training loop",
        caption="Measured by `skd bench`, sides alternating in one run "
        f"({', '.join(sorted(versions))}). The plain loop is the field's common practice: images "
        "through PIL in a loader's workers, a live teacher, eager, metrics read every step. An "
        "epoch is its steps and one evaluation; the interval of a ratio is over rounds. The share "
        "of the peak is that of a large matrix product on the spot. A stored teacher costs forward "
        "passes once: it pays after so many runs.",
        columns=(
            TableColumn("Machine", number=False, filter=True),
            TableColumn("Pair", number=False, filter=True),
            TableColumn("Method", number=False, filter=True),
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


def _entries(machine: str, row: BenchmarkRow, pays: float | None) -> tuple[TableEntry, ...]:
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
        _number(pays, 2),
    )


def _side(row: BenchmarkRow) -> str:
    """Return the side as a reader knows it, with its variant where the file names one."""
    side = SIDE_LABELS.get(row.side, row.side)
    return f"{side}, {row.variant}" if row.variant else side


def _variant(row: BenchmarkRow) -> str:
    if row.side not in SIDES_WITH_VARIANTS:
        return ""
    return row.variant or DEFAULT_VARIANT  # what there was before there were variants


def _number(value: float | None, digits: int, factor: float = 1.0) -> TableEntry:
    if value is None:
        return TableEntry("")
    return TableEntry(number(factor * value, digits), sort=factor * value)


def _pays(comparison: BenchmarkResult, row: BenchmarkRow) -> float | None:
    if row.side != OURS or not _comparable(comparison, row):
        return None
    for views in comparison.teacher_views:
        if views.teacher == row.teacher:
            return views.pays_after_runs.get(f"{row.pair}/{row.method}")
    return None


def _comparable(comparison: BenchmarkResult, row: BenchmarkRow) -> bool:
    """Whether a row is that of ours which the stored views were compared by: the first of ours."""
    ours = (one for one in comparison.rows if one.side == OURS and not one.failure)
    first = next(one for one in ours if (one.pair, one.method) == (row.pair, row.method))
    return (_variant(row), row.lanes) == (_variant(first), first.lanes)
