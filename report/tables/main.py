"""The main table: one accuracy a method and pair, small enough for a column of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from report.formats import ABSENT, number, signed
from report.frames.averages import average_difference
from report.frames.cells import CONTROL, CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import Summary, summarise
from report.tables.accuracies import (
    accuracy_text,
    average_accuracy,
    expected_seeds,
    method_entry,
    pair_column,
    teacher_label,
    what_is_shown,
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
) -> ReportTable | None:
    """Return the accuracies of teachers, students alone and methods, with the mean gain.

    Few pairs have a column each. Many pairs are averaged: those of the same style, those of
    different style, and all. An average is over the pairs with results. ``None`` without any.
    """
    if not any(cell.done for pair in pairs for cell in pair.cells):
        return None
    parts = _parts(pairs, names, options)
    groups = group_methods(pairs, methods)
    with_gain = CONTROL in groups.methods and len(groups.methods) > 1
    rows = [(TableEntry(teacher_label(pairs, names)), *(_teachers(of) for _, of in parts))]
    rows += [
        (_label(pairs, method, names), *(_accuracy(of, method, options.spread) for _, of in parts))
        for method in groups.methods
    ]
    if with_gain:
        keys = (None, *groups.methods)
        rows = [(*row, _gain(pairs, key)) for key, row in zip(keys, rows, strict=True)]
    gain = (TableColumn("Gain" if len(pairs) == 1 else "Mean\ngain", begins_group=True),)
    table = ReportTable(
        key="main",
        title="Main results",
        caption=_caption(parts, rows, options.spread, with_gain),
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


def _label(pairs: Sequence[PairFinding], method: str, names: Names) -> TableEntry:
    link = pairs[0].cell(method).anchor if len(pairs) == 1 else ""
    return replace(method_entry(pairs, method, names), link=link)


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
    accuracies = [pair.teacher.top1 for pair in pairs if pair.teacher.top1 is not None]
    if not accuracies:
        return TableEntry(ABSENT)
    mean = summarise(accuracies).mean
    return TableEntry(
        number(mean) + UNFINISHED * (len(accuracies) < len(pairs)),
        sort=mean,
        link="teachers",
        hint=_of_some(len(accuracies), pairs),
    )


def _accuracy(pairs: Sequence[PairFinding], method: str, spread: Spread) -> TableEntry:
    cells = [cell for pair in pairs if (cell := pair.cell(method)) is not None]
    done = [cell for cell in cells if cell.done]
    summary = _summary(done, pairs)
    if summary is None or summary.mean is None:
        return TableEntry(ABSENT, hint=_why_absent(cells, done, pairs))
    partial = len(done) < len(pairs) or summary.n < max(cell.expected for cell in done)
    best = len(pairs) == 1 and pairs[0].best_method == method
    return TableEntry(
        accuracy_text(summary, spread) + UNFINISHED * partial,
        sort=summary.mean,
        tone="best" if best else "",
        link=done[0].anchor if len(pairs) == 1 else "",
        hint=_of_some(len(done), pairs),
    )


def _summary(done: Sequence[CellFinding], pairs: Sequence[PairFinding]) -> Summary | None:
    if len(pairs) == len(done) == 1:
        return done[0].last
    return average_accuracy(done, pairs[0].resolution)


def _of_some(count: int, pairs: Sequence[PairFinding]) -> str:
    return f"mean over {count} of {len(pairs)} pairs" if count < len(pairs) else ""


def _why_absent(
    cells: Sequence[CellFinding], done: Sequence[CellFinding], pairs: Sequence[PairFinding]
) -> str:
    if not cells:
        return "the study does not have this method for " + (
            "these pairs" if len(pairs) > 1 else "this pair"
        )
    return "the pairs have no finished seed in common" if done else "no seed is finished"


def _gain(pairs: Sequence[PairFinding], method: str | None) -> TableEntry:
    if method is None or method == CONTROL:
        return TableEntry(ABSENT)
    gain = average_difference(pairs, method, CONTROL)
    if gain is None:
        return TableEntry(ABSENT)
    partial = len(gain.pairs) < len(pairs) or gain.difference.n < _expected(pairs, method)
    return TableEntry(
        signed(gain.difference.mean) + UNFINISHED * partial,
        sort=gain.difference.mean,
        hint=_of_some(len(gain.pairs), pairs),
    )


def _expected(pairs: Sequence[PairFinding], method: str) -> int:
    cells = (pair.cell(method) for pair in pairs)
    return max(cell.expected for cell in cells if cell is not None)


def _caption(
    parts: Sequence[Part],
    rows: Sequence[tuple[TableEntry, ...]],
    spread: Spread,
    with_gain: bool,
) -> str:
    everything = parts[-1][1]
    sentences = [f"{what_is_shown(everything, spread)}."]
    if len(everything) > 1 and expected_seeds(everything) > 1:
        sentences.append("Means over pairs are taken at each seed before the spread over seeds.")
    if with_gain:
        sentences.append("Gain: in points over the student alone, paired by seed.")
    shown = [entry.text for row in rows for entry in row[1 : 1 + len(parts)]]
    if any(text.endswith(UNFINISHED) for text in shown):
        sentences.append(f"{UNFINISHED}: not all pairs or seeds have a result.")
    if ABSENT in shown:
        sentences.append(f"{ABSENT}: no result.")
    if any(len(pairs) == 1 and pairs[0].best_method for _, pairs in parts):
        sentences.append("Bold: significantly better than every other method of the pair.")
    return " ".join(sentences)
