"""The table of results cell by cell, with everything that verdicts depend on."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import (
    ABSENT,
    EXACT_MARK,
    interval,
    mean_and_sd,
    number,
    number_range,
    plural,
    published_text,
    signed,
)
from report.frames.cells import CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import EQUIVALENCE_CONFIDENCE
from report.statistics.verdicts import MAX_SEEDS_TRIED, Verdict
from report.tables.table import ReportTable, TableColumn, TableEntry


def cells_table(pairs: Sequence[PairFinding], names: Names, margin: float) -> ReportTable:
    """Return a row for each (pair, method), with everything that its verdict depends on."""
    cells = [cell for pair in pairs for cell in pair.cells]
    published = any(cell.published for cell in cells)
    has_best = any(cell.best != cell.last for cell in cells)
    best = (
        " The best epoch is chosen on the evaluated images themselves, so its accuracy is biased "
        "upwards."
        if has_best
        else ""
    )
    verdicts = (
        f" Verdicts at a margin of {margin:g} points: reproduced if the 90 % interval of the "
        "difference is within the margin; otherwise higher or lower if the 95 % interval excludes "
        "zero; otherwise inconclusive. Every verdict on a student is valid only for the teacher it "
        f"had. {EXACT_MARK}: the number of published runs is unstated. The value is treated as "
        "exact, so the verdicts higher and lower occur too often."
        if published
        else ""
    )
    return ReportTable(
        key="cells",
        title="Every method in full" if len(pairs) == 1 else "Every method of every pair",
        caption="Top-1 accuracy in percent, mean ± sample standard deviation over seeds."
        f"{best} Gain is at the last epoch, paired by seed, with its 95 % interval.{verdicts}",
        columns=_cell_columns(published, has_best),
        rows=tuple(
            _cell_row(pair, cell, names, published, has_best)
            for pair in pairs
            for cell in pair.cells
        ),
        interactive=True,
    )


def _cell_columns(published: bool, has_best: bool) -> tuple[TableColumn, ...]:
    columns = [
        TableColumn("Pair", number=False, filter=True, holds="pair"),
        TableColumn("Method", number=False, filter=True, holds="method"),
        TableColumn("Gain over\nstudent alone"),
        TableColumn("Last epoch"),
        TableColumn("95 % interval"),
    ]
    if has_best:
        columns.append(TableColumn("Best epoch"))
    if published:
        columns += [
            TableColumn("Published"),
            TableColumn("Ours minus\npublished"),
            TableColumn("Verdict", number=False, filter=True),
            TableColumn("Least\nmargin"),
        ]
    return (*columns, TableColumn("Runs", number=False))


def _cell_row(
    pair: PairFinding, cell: CellFinding, names: Names, published: bool, has_best: bool
) -> tuple[TableEntry, ...]:
    best = "best" if pair.best_method == cell.method else ""
    row = [
        TableEntry(cell.pair),
        TableEntry(cell.method, detail=own_teacher_text(cell, names), link=cell.anchor),
        _gain(cell),
        TableEntry(mean_and_sd(cell.last), sort=cell.last.mean, tone=best),
        TableEntry(
            number_range(cell.last.interval) if cell.last.n else ABSENT,
            sort=_width(cell.last.interval),
        ),
    ]
    row += [TableEntry(mean_and_sd(cell.best), sort=cell.best.mean)] if has_best else []
    row += against_published(cell) if published else []
    return (*row, _runs(cell))


def difference_text(verdict: Verdict) -> tuple[str, str]:
    """Return ours minus published and its 90 % interval; both epochs' if both are compared."""
    means, ranges = [], []
    for comparison in verdict.comparisons:
        if comparison.difference is None:
            return ABSENT, ""
        epoch = f" ({comparison.epoch})" if len(verdict.comparisons) > 1 else ""
        means.append(f"{signed(comparison.difference.mean)}{epoch}")
        ranges.append(interval(comparison.difference, EQUIVALENCE_CONFIDENCE))
    return ", ".join(means), "; ".join(dict.fromkeys(ranges))


def verdict_entry(verdict: Verdict) -> TableEntry:
    """Return a verdict; if it is inconclusive, with the number of seeds that would decide."""
    more = verdict.more_seeds
    if verdict.kind != "inconclusive" or any(
        c.difference is None or c.difference.se is None for c in verdict.comparisons
    ):
        detail = ""
    elif more is not None:
        detail = f"about {plural(more, 'more seed')} would decide"
    elif all(c.kind != "inconclusive" for c in verdict.comparisons):
        detail = "depends on the epoch"
    else:
        detail = f"undecided even with {MAX_SEEDS_TRIED:,} seeds"
    hint = "; ".join(verdict.remarks)
    return TableEntry(verdict.kind, detail=detail, tone=verdict.kind, hint=hint)


def against_published(cell: CellFinding) -> list[TableEntry]:
    """Return the published value, ours minus it, the verdict, and the least margin."""
    value, verdict = cell.published, cell.verdict
    if value is None:
        return [
            TableEntry("not available"),
            TableEntry(ABSENT),
            TableEntry(ABSENT),
            TableEntry(ABSENT),
        ]
    published = TableEntry(published_text(value), sort=value.top1, hint=value.source)
    if verdict is None:
        return [
            published,
            TableEntry(ABSENT),
            TableEntry("not compared", hint="another recipe"),
            TableEntry(ABSENT),
        ]
    text, ranges = difference_text(verdict)
    difference = verdict.comparisons[0].difference
    return [
        published,
        TableEntry(text, detail=ranges, sort=difference.mean if difference else None),
        verdict_entry(verdict),
        TableEntry(number(verdict.least_margin), sort=verdict.least_margin),
    ]


def own_teacher_text(cell: CellFinding, names: Names) -> str:
    """Return the teacher of a method that does not have the pair's; empty for other methods."""
    return f"teacher {names.network(cell.own_teacher)}" if cell.own_teacher else ""


def hints_of(cell: CellFinding) -> list[str]:
    """Return what hovering over a cell's marks shows."""
    return [mark.hint for mark in cell.marks if mark.hint]


def _runs(cell: CellFinding) -> TableEntry:
    marks = tuple((mark.kind, mark.text) for mark in cell.marks)
    of = "" if cell.done == cell.expected else f" of {cell.expected}"
    return TableEntry(
        f"{cell.done}{of}", sort=cell.done, marks=marks, hint="; ".join(hints_of(cell))
    )


def _gain(cell: CellFinding) -> TableEntry:
    if cell.is_control:
        return TableEntry("reference", sort=0.0)
    if cell.gain is None:
        return TableEntry(ABSENT)
    return TableEntry(signed(cell.gain.mean), detail=interval(cell.gain), sort=cell.gain.mean)


def _width(bounds: tuple[float, float] | None) -> float | None:
    return None if bounds is None else bounds[1] - bounds[0]
