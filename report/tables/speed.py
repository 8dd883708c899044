"""How fast our training loop is, against others on the same machine: what `skd bench` measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.results import BenchError, Comparison, Row, read
from benchmarks.sides import OURS, VARIED
from benchmarks.variants import DEFAULT
from report.formats import mebibytes, number
from report.table_model import Column, Entry, Table
from skd.study.expansion import Expansion

FOLDER = "bench"
SIDES = {
    "skd": "ours",
    "skd-live": "ours, live teacher",
    "plain": "plain loop",
    "mdistiller": "mdistiller",
}


def read_comparisons(results: Path, expansion: Expansion) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons of a study's data set, oldest first, and why others cannot be read."""
    found, problems = [], []
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            comparison = read(path)
        except BenchError as error:
            problems.append(str(error))
            continue
        if comparison.dataset.name == expansion.dataset.name:
            found.append(comparison)
    return sorted(found, key=lambda comparison: comparison.made_at), problems


def speed_table(comparisons: Iterable[Comparison], expansion: Expansion) -> Table | None:
    """Return the table of the study's pairs, or none where nothing was measured.

    It has a row for each machine, pair, method, side, variant of our side, and number of lanes.
    """
    pairs = {cell.pair for cell in expansion.cells}
    rows: dict[tuple[str, ...], tuple[Entry, ...]] = {}
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
    return Table(
        key="speed",
        title="Speed of the training loop",
        caption="Measured by `skd bench`, sides alternating in one run "
        f"({', '.join(sorted(versions))}). The plain loop is the field's common practice: images "
        "through PIL in a loader's workers, a live teacher, eager, metrics read every step. An "
        "epoch is its steps and one evaluation; the interval of a ratio is over rounds. The share "
        "of the peak is that of a large matrix product on the spot. A stored teacher costs forward "
        "passes once: it pays after so many runs.",
        columns=(
            Column("Machine", number=False, filter=True),
            Column("Pair", number=False, filter=True),
            Column("Method", number=False, filter=True),
            Column("Side", number=False, filter=True),
            Column("Lanes"),
            Column("A step\n(ms)"),
            Column("Images/s"),
            Column("An epoch\n(s)"),
            Column("Evaluation\n(%)"),
            Column("Peak\nmemory"),
            Column("Share of\npeak (%)"),
            Column("Over the\nplain loop"),
            Column("Pays after\n(runs)"),
        ),
        rows=tuple(rows.values()),
        interactive=True,
    )


def _entries(machine: str, row: Row, pays: float | None) -> tuple[Entry, ...]:
    speed = row.speed_up
    interval = f"{speed.low:.2f} to {speed.high:.2f}" if speed and speed.low else ""
    return (
        Entry(machine),
        Entry(row.pair.replace("--", " → ")),
        Entry(row.method),
        Entry(_side(row)),
        Entry(str(row.lanes), sort=row.lanes),
        _number(row.seconds_per_step, 1, 1000),
        _number(row.images_per_second, 0),
        _number(row.seconds_per_epoch, 1),
        _number(row.evaluation_share, 1, 100),
        Entry(
            "" if row.peak_memory_bytes is None else mebibytes(row.peak_memory_bytes),
            sort=row.peak_memory_bytes,
        ),
        _number(row.share_of_peak, 1, 100),
        Entry(f"{speed.value:.2f}x", detail=interval, sort=speed.value) if speed else Entry(""),
        _number(pays, 2),
    )


def _side(row: Row) -> str:
    """Return the side as a reader knows it, with its variant where the file names one."""
    side = SIDES.get(row.side, row.side)
    return f"{side}, {row.variant}" if row.variant else side


def _variant(row: Row) -> str:
    if row.side not in VARIED:
        return ""
    return row.variant or DEFAULT  # what there was before there were variants


def _number(value: float | None, digits: int, factor: float = 1.0) -> Entry:
    if value is None:
        return Entry("")
    return Entry(number(factor * value, digits), sort=factor * value)


def _pays(comparison: Comparison, row: Row) -> float | None:
    if row.side != OURS or not _comparable(comparison, row):
        return None
    for views in comparison.teacher_views:
        if views.teacher == row.teacher:
            return views.pays_after_runs.get(f"{row.pair}/{row.method}")
    return None


def _comparable(comparison: Comparison, row: Row) -> bool:
    """Whether a row is that of ours which the stored views were compared by: the first of ours."""
    ours = (one for one in comparison.rows if one.side == OURS and not one.failure)
    first = next(one for one in ours if (one.pair, one.method) == (row.pair, row.method))
    return (_variant(row), row.lanes) == (_variant(first), first.lanes)
