"""A study's results as tables for a terminal, for `skd results`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from report.findings import Findings
from report.formats import (
    ABSENT,
    ONE_SEED,
    interval,
    mean_and_sd,
    number,
    signed,
)
from report.frames.averages import AverageDifference, average_gains
from report.frames.cells import CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import Difference

TABLE_EACH = 2  # up to this number of pairs, each has a table with gains and intervals
NOTE = "Top-1 accuracy at the last epoch, mean ± standard deviation over seeds."
GAIN_NOTE = (
    " Gain: minus the student alone, paired by seed, in points. Better or worse: the 95 % interval "
    "of the gain excludes zero, without a correction for the number of methods."
)
DOUBT_STYLES = {"fatal": "bold red", "caution": "yellow"}  # notes are in the report only
VERDICT_STYLES = {"reproduced": "green", "higher": "cyan", "lower": "red"}


def results_tables(findings: Findings, width: int) -> Iterator[RenderableType]:
    """Yield the results of a study for a terminal.

    One or two pairs have a table each, with a row for each method: accuracy, gain over the student
    alone with its interval, and the published value if there is one. More pairs are columns, in
    blocks that fit; the mean gain over the pairs follows, if any method has one. Last come reasons
    to doubt the results.

    Args:
        findings: the study's results.
        width: the terminal's width, in characters.
    """
    expansion, pairs, names = findings.expansion, findings.pairs, findings.names
    yield Text(f"{expansion.study}: {expansion.title}", style="bold")
    if not any(cell.done for pair in pairs for cell in pair.cells):
        yield Text("No run has finished yet, so there are no results.")
        return
    gains = {gain.a: gain for gain in average_gains(pairs, expansion.methods)}
    if len(pairs) <= TABLE_EACH:
        for pair in pairs:
            yield Text("")
            yield _pair_table(pair, names)
    else:
        yield from _column_tables(pairs, expansion.methods, names, width)
        if gains:
            yield Text("")
            yield _gains_table(gains, expansion.methods, names)
    yield Text("")
    yield Text(NOTE + GAIN_NOTE * bool(gains), style="dim")
    for doubt in findings.doubts:
        if doubt.severity in DOUBT_STYLES:
            yield Text("")
            yield Text(doubt.paragraph, style=DOUBT_STYLES[doubt.severity])


def _pair_table(pair: PairFinding, names: Names) -> Table:
    """Return a pair's table, with a row for the teacher and for each method."""
    published = any(cell.published for cell in pair.cells) or bool(pair.teacher.published)
    table = _table(names.pair(pair), gap=1 if published else 2)  # all columns fit 80 characters
    table.add_column("method", overflow="fold")
    for heading in ("top-1, %", "gain", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    if published:
        table.add_column("paper", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
    against = [number(value.top1) if (value := pair.teacher.published) else ABSENT, ""]
    teacher = ["Teacher", number(pair.teacher.top1), "", "", "", *(against if published else [])]
    table.add_row(*teacher, style="dim")
    for cell in pair.cells:
        table.add_row(*_cell_row(cell, names), *(_against_published(cell) if published else []))
    return table


def _cell_row(cell: CellFinding, names: Names) -> list[str | Text]:
    gain = None if cell.is_control else cell.gain
    return [
        names.method(cell.method),
        _accuracy(cell),
        signed(gain.mean) if gain else "",
        _interval(gain),
        _direction(gain),
    ]


def _against_published(cell: CellFinding) -> list[str | Text]:
    if cell.published is None:
        return [ABSENT, ""]
    kind = cell.verdict.kind if cell.verdict else ""
    return [number(cell.published.top1), Text(kind, style=VERDICT_STYLES.get(kind, ""))]


def _column_tables(
    pairs: Sequence[PairFinding], methods: Sequence[str], names: Names, width: int
) -> Iterator[RenderableType]:
    """Yield tables with a column for each pair, as many in each as fit the width."""
    accuracies = [_accuracy(cell) for pair in pairs for cell in pair.cells]
    heads = [part for pair in pairs for part in names.pair(pair).split(" → ")]
    first = max(len("Teacher"), *(len(names.method(method)) for method in methods))
    others = max(map(len, (*accuracies, *heads)))
    in_block = max(1, (width - first) // (others + 2))
    for start in range(0, len(pairs), in_block):
        block = pairs[start : start + in_block]
        table = _table()
        table.add_column("method", no_wrap=True)
        for pair in block:
            table.add_column(names.pair(pair).replace(" → ", "\n"), justify="right")
        table.add_row("Teacher", *(number(pair.teacher.top1) for pair in block), style="dim")
        for method in methods:
            cells = [pair.cell(method) for pair in block]
            if any(cells):
                texts = (_accuracy(cell) if cell else ABSENT for cell in cells)
                table.add_row(names.method(method), *texts)
        yield Text("")
        yield table


def _gains_table(
    gains: Mapping[str, AverageDifference], methods: Sequence[str], names: Names
) -> Table:
    """Return the mean gain of each method over its pairs, in the order of the methods."""
    table = _table("Mean gain over the student alone")
    table.add_column("method", no_wrap=True)
    for heading in ("gain", "95 % interval", "pairs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for method in (method for method in methods if method in gains):
        gain = gains[method].difference
        count = str(len(gains[method].pairs))
        table.add_row(
            names.method(method), signed(gain.mean), _interval(gain), count, _direction(gain)
        )
    return table


def _table(title: str | None = None, gap: int = 2) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, gap, 0, 0),
    )


def _accuracy(cell: CellFinding) -> str:
    """Return a cell's accuracy; with its number of runs if some are missing."""
    if not cell.done:
        return ABSENT
    missing = f" ({cell.done} of {cell.expected})" if cell.done < cell.expected else ""
    return mean_and_sd(cell.last) + missing


def _interval(gain: Difference | None) -> str:
    if gain is None:
        return ""
    text = interval(gain)
    return "one seed" if text == ONE_SEED else text


def _direction(gain: Difference | None) -> Text:
    """Return "better" or "worse" if the interval of a gain excludes zero, and otherwise nothing."""
    if gain is None or not gain.direction:
        return Text("")
    return Text("better", style="green") if gain.direction > 0 else Text("worse", style="red")
