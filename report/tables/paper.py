"""The tables of results in the layout of papers, with published values and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, EXACT_MARK, number, signed, verdict_symbol
from report.frames.cells import PairFinding
from report.names import Names
from report.tables.accuracies import (
    accuracy_text,
    method_entry,
    pair_column,
    teacher_label,
    what_is_shown,
)
from report.tables.method_groups import group_methods
from report.tables.results import hints_of, own_teacher_text
from report.tables.table import ReportTable, TableColumn, TableEntry, transposed
from report.tables.teachers import MISSING_TEACHER
from skd.study.presentation import Spread, TableOptions
from skd.study.published import PublishedValue

TITLES = {"same": "Pairs of the same style", "different": "Pairs of different style"}
LEGEND = (
    " Below each value: the published value, its epoch, our mean at that epoch minus the published "
    "value, and the verdict (= reproduced, ↑ higher, ↓ lower, ? inconclusive, · not run). If the "
    "published epoch is unstated (epoch?), the mean is that of the last epoch and the verdict "
    f"covers both epochs. {EXACT_MARK}: the number of published runs is unstated, so the value is "
    "treated as exact. "
)


def paper_tables(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    names: Names,
    margin: float,
    options: TableOptions,
) -> list[ReportTable]:
    """Return one table per style: a row a method and a column a pair, or the other way round.

    A single pair without published values has none, because the main table says the same.
    """
    published = any(cell.published for pair in pairs for cell in pair.cells)
    if len(pairs) == 1 and not published and not pairs[0].teacher.published:
        return []
    legend = f"{LEGEND}The margin is {margin:g} points." if published else ""
    tables = [
        _style_table(title, of_style, methods, names, options.spread, legend)
        for style, title in TITLES.items()
        if (of_style := [pair for pair in pairs if pair.style == style])
    ]
    return [*map(transposed, tables)] if options.layout == "methods-as-columns" else tables


def _style_table(
    title: str,
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    names: Names,
    spread: Spread,
    legend: str,
) -> ReportTable:
    groups = group_methods(pairs, methods)
    rows = [(TableEntry(teacher_label(pairs, names)), *(_teacher(pair) for pair in pairs))]
    rows += [
        (
            method_entry(pairs, method, names),
            *(_cell(pair, method, names, spread) for pair in pairs),
        )
        for method in groups.methods
    ]
    cells = [cell for pair in pairs for cell in pair.cells]
    of_fewer = ", or over n seeds" * any(0 < cell.done < cell.expected for cell in cells)
    bold = (
        " Bold: significantly better than every other method of the pair (paired t tests, Holm's "
        "correction over all comparisons of the pair)."
    ) * any(pair.best_method for pair in pairs)
    return ReportTable(
        key=f"{pairs[0].style}-style",
        title=title,
        caption=f"{what_is_shown(pairs, spread)}{of_fewer}.{legend}{bold}",
        columns=(
            TableColumn("Teacher\nStudent", number=False),
            *(pair_column(pair, names) for pair in pairs),
        ),
        rows=tuple(rows),
        groups=tuple(
            place for place, method in enumerate(groups.methods, 1) if method in groups.starts
        ),
    )


def _teacher(pair: PairFinding) -> TableEntry:
    teacher, value = pair.teacher, pair.teacher.published
    detail = f"{number(value.top1)} {_epoch(value)}" if value else ""
    if teacher.top1 is None:
        return TableEntry("", detail=detail, marks=(MISSING_TEACHER,), link="teachers")
    detail += f", {signed(teacher.difference)}" if value else ""
    return TableEntry(number(teacher.top1), detail=detail, sort=teacher.top1, link="teachers")


def _cell(pair: PairFinding, method: str, names: Names, spread: Spread) -> TableEntry:
    cell = pair.cell(method)
    if cell is None:
        return TableEntry(ABSENT, hint="the study does not have this method for this pair")
    value, detail = cell.published, ""
    if value is not None:
        detail = f"{number(value.top1)}{'' if value.n_runs else EXACT_MARK} {_epoch(value)}"
        if cell.verdict is not None:
            difference = cell.verdict.comparisons[0].difference
            detail += f", {signed(difference.mean)}" if difference else ""
            detail += f" {verdict_symbol(cell.verdict.kind)}"
    tones = ["best"] * (pair.best_method == method) + ([cell.verdict.kind] if cell.verdict else [])
    n = f" (n = {cell.done})" if cell.done < cell.expected else ""
    return TableEntry(
        accuracy_text(cell.last, spread) + n if cell.done else "",
        detail=detail,
        sort=cell.last.mean,
        tone=" ".join(tones),
        link=cell.anchor,
        hint="; ".join(filter(None, [own_teacher_text(cell, names), *hints_of(cell)])),
        marks=tuple((mark.kind, mark.text) for mark in cell.marks),
    )


def _epoch(value: PublishedValue) -> str:
    return "epoch?" if value.reported_epoch == "unstated" else value.reported_epoch
