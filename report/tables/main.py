"""The main table: one accuracy a method and pair, small enough for a column of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from report.formats import ABSENT, number, plural, signed
from report.frames.cells import CONTROL, CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import Summary, summarise
from report.tables.accuracies import (
    SPREAD_TEXTS,
    accuracy_text,
    average_accuracy,
    average_gain,
    method_label,
    pair_column,
    teacher_label,
)
from report.tables.method_groups import group_methods
from report.tables.table import ReportTable, TableColumn, TableEntry, transposed
from skd.study.presentation import Spread, TableOptions

MAX_PAIR_COLUMNS = 3  # so many, and a mean, fit a column of a paper
UNFINISHED = "*"
Part = tuple[TableColumn, Sequence[PairFinding]]  # a column, and the pairs that it averages


def main_table(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    names: Names,
    options: TableOptions,
) -> ReportTable:
    """Return the accuracies of teachers, students alone and methods, with the mean gain.

    Few pairs have a column each. Many pairs are averaged: those of the same style, those of
    different style, and all.
    """
    parts = _parts(pairs, names, options)
    groups = group_methods(pairs, methods)
    with_gain = CONTROL in groups.methods and len(groups.methods) > 1
    rows = [(TableEntry(teacher_label(pairs, names)), *(_teachers(of) for _, of in parts))]
    rows += [
        (
            TableEntry(
                method_label(pairs, method, names),
                link=pairs[0].cell(method).anchor if len(pairs) == 1 else "",
            ),
            *(_accuracy(of, method, options.spread) for _, of in parts),
        )
        for method in groups.methods
    ]
    if with_gain:
        keys = (None, *groups.methods)
        rows = [(*row, _gain(pairs, key)) for key, row in zip(keys, rows, strict=True)]
    gain = (TableColumn("Gain" if len(pairs) == 1 else "Mean\ngain", begins_group=True),)
    table = ReportTable(
        key="main",
        title="Main results",
        caption=_caption(pairs, options.spread, with_gain),
        columns=(
            TableColumn("", number=False),
            *(
                replace(column, begins_group=place > 0 and of is pairs)
                for place, (column, of) in enumerate(parts)
            ),
            *(gain if with_gain else ()),
        ),
        rows=tuple(rows),
        groups=tuple(
            place for place, method in enumerate(groups.methods, 1) if method in groups.starts
        ),
        narrow=True,
    )
    return transposed(table) if options.layout == "methods-as-columns" else table


def _parts(pairs: Sequence[PairFinding], names: Names, options: TableOptions) -> list[Part]:
    if len(pairs) == 1:
        return [(TableColumn("Top-1 (%)"), pairs)]
    if len(pairs) <= MAX_PAIR_COLUMNS or options.layout != "auto":
        columns: list[Part] = [(pair_column(pair, names), [pair]) for pair in pairs]
        return [*columns, (TableColumn("Mean"), pairs)]
    parts: list[Part] = []
    for style in ("same", "different"):
        of = [pair for pair in pairs if pair.style == style]
        if 0 < len(of) < len(pairs):
            parts.append((TableColumn(f"{style.capitalize()} style\n({len(of)})"), of))
    return [*parts, (TableColumn(f"All pairs\n({len(pairs)})"), pairs)]


def _teachers(pairs: Sequence[PairFinding]) -> TableEntry:
    accuracies = [pair.teacher.top1 for pair in pairs]
    if None in accuracies:
        return TableEntry(ABSENT)
    mean = summarise(accuracies).mean
    return TableEntry(number(mean), sort=mean, link="teachers")


def _accuracy(pairs: Sequence[PairFinding], method: str, spread: Spread) -> TableEntry:
    cells = [pair.cell(method) for pair in pairs]
    summary = _summary(cells, pairs[0].resolution)
    if summary is None or summary.mean is None:
        return TableEntry(ABSENT, hint=_why_absent(cells))
    unfinished = summary.n < max(cell.expected for cell in cells if cell is not None)
    best = len(pairs) == 1 and pairs[0].best_method == method
    return TableEntry(
        accuracy_text(summary, spread) + (UNFINISHED if unfinished else ""),
        sort=summary.mean,
        tone="best" if best else "",
        link=cells[0].anchor if len(cells) == 1 and cells[0] is not None else "",
    )


def _summary(cells: Sequence[CellFinding | None], resolution: float) -> Summary | None:
    if len(cells) == 1:
        return cells[0].last if cells[0] is not None else None
    return average_accuracy(cells, resolution)


def _why_absent(cells: Sequence[CellFinding | None]) -> str:
    if None in cells:
        return "the study does not have this method for " + (
            "every pair" if len(cells) > 1 else "this pair"
        )
    return "no seed is finished" + (" in all pairs" if len(cells) > 1 else "")


def _gain(pairs: Sequence[PairFinding], method: str | None) -> TableEntry:
    gain = average_gain(pairs, method) if method is not None else None
    return TableEntry(ABSENT if gain is None else signed(gain), sort=gain)


def _caption(pairs: Sequence[PairFinding], spread: Spread, with_gain: bool) -> str:
    seeds = plural(max(cell.expected for pair in pairs for cell in pair.cells), "seed")
    parts = [
        f"Top-1 accuracy in percent at the last epoch, {SPREAD_TEXTS[spread].format(seeds=seeds)}."
    ]
    if len(pairs) > 1:
        parts.append("Means over pairs are taken at each seed before the spread over seeds.")
    if with_gain:
        parts.append("Gain: in points over the student alone, paired by seed.")
    if any(cell.done < cell.expected for pair in pairs for cell in pair.cells):
        parts.append(f"{UNFINISHED}: not all seeds are finished. {ABSENT}: no result.")
    if any(pair.best_method for pair in pairs):
        parts.append("Bold: significantly better than every other method of the pair.")
    return " ".join(parts)
