"""The results: in the papers' layout, cell by cell with verdicts, and the teachers they rest on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    verdict_symbol,
)
from report.frames.cells import CellFinding, PairFinding
from report.frames.study_frames import Frames
from report.statistics.intervals import EQUIVALENCE_CONFIDENCE
from report.statistics.verdicts import MAX_SEEDS_TRIED, Verdict
from report.tables.table import ReportTable, TableColumn, TableEntry

CONTRADICTED = ("contradicted", "contradicted by stored files")
LEGEND = (
    "Below a value the published one, the epoch it reports, our mean at that epoch minus it and "
    "the verdict: = reproduced, ↑ higher, ↓ lower, ? inconclusive, · not run; for an unstated "
    "epoch (epoch?) the mean is the last one's and the verdict that of both. "
    f"{EXACT_MARK}: of how many runs is not stated, so the value is taken as exact. "
)


def paper_tables(
    pairs: Sequence[PairFinding], methods: Sequence[str], margin: float
) -> list[ReportTable]:
    """Return the tables in the papers' layout: methods down, pairs across, one a style."""
    published = any(cell.published for pair in pairs for cell in pair.cells)
    tables = []
    for style, title in (
        ("same", "Pairs of the same style"),
        ("different", "Pairs of different style"),
    ):
        across = [pair for pair in pairs if pair.style == style]
        if not across:
            continue
        down = [m for m in methods if any(pair.cell(m) for pair in across)]
        rows = [(TableEntry("teacher"), *(_teacher(pair) for pair in across))]
        rows += [(TableEntry(method), *(_cell(pair, method) for pair in across)) for method in down]
        legend = f"{LEGEND}The margin is {margin:g} points. " if published else ""
        seeds = max(cell.expected for pair in across for cell in pair.cells)
        tables.append(
            ReportTable(
                key=f"{style}-style",
                title=title,
                caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard "
                f"deviation over {plural(seeds, 'seed')}, or n. {legend}Bold: its lead over every "
                "other method of the pair is significant (paired t tests, Holm's correction over "
                "all comparisons of the pair).",
                columns=(
                    TableColumn("", number=False),
                    *(TableColumn(f"{pair.teacher.name}\n{pair.student}") for pair in across),
                ),
                rows=tuple(rows),
            )
        )
    return tables


def cells_table(pairs: Sequence[PairFinding], margin: float) -> ReportTable:
    """Return a row a (pair, method), with everything that a verdict rests on."""
    published = any(cell.published for pair in pairs for cell in pair.cells)
    columns = [
        TableColumn("Pair", number=False, filter=True),
        TableColumn("Method", number=False, filter=True),
        TableColumn("Last epoch"),
        TableColumn("95 % interval"),
        TableColumn("Best epoch"),
    ]
    if published:
        columns += [
            TableColumn("Published"),
            TableColumn("Ours minus\npublished"),
            TableColumn("Verdict", number=False, filter=True),
            TableColumn("Least\nmargin"),
        ]
    columns += [TableColumn("Gain over\nstudent alone"), TableColumn("Runs", number=False)]
    rows = []
    for pair in pairs:
        for cell in pair.cells:
            best = "best" if pair.best == cell.method else ""
            row = [
                TableEntry(cell.pair),
                TableEntry(cell.method, link=cell.anchor),
                TableEntry(mean_and_sd(cell.last), sort=cell.last.mean, tone=best),
                TableEntry(
                    number_range(cell.last.interval) if cell.last.n else ABSENT,
                    sort=_width(cell.last.interval),
                ),
                TableEntry(mean_and_sd(cell.best), sort=cell.best.mean),
            ]
            row += against_published(cell) if published else []
            rows.append((*row, _gain(cell), _runs(cell)))
    judged = (
        f" Verdicts at a margin of {margin:g} points: reproduced where the 90 % interval of the "
        "difference lies within it, else higher or lower where the 95 % interval excludes zero, "
        "else inconclusive. Every verdict on a student holds for the teacher it had. "
        f"{EXACT_MARK}: of how many runs the published value is a mean is not stated; it is taken as "
        "exact, so higher or lower is said too readily."
        if published
        else ""
    )
    return ReportTable(
        key="cells",
        title="Every cell",
        caption="Top-1 accuracy in percent, mean ± sample standard deviation over seeds. Best is "
        "the epoch chosen on the evaluated images afterwards, which flatters. Gain is at the "
        f"last epoch, paired by seed, with its 95 % interval.{judged}",
        columns=tuple(columns),
        rows=tuple(rows),
        interactive=True,
    )


def teachers_table(
    frames: Frames, pairs: Sequence[PairFinding], contradicted: Collection[str] = ()
) -> ReportTable:
    """Return the teachers, beside their published accuracies where there are any.

    ``contradicted`` are identities of teachers whose stored files contradict their cards.
    """
    found = {pair.teacher.name: pair.teacher for pair in pairs}
    any_published = any(finding.published for finding in found.values())
    columns = [TableColumn("Teacher", number=False), TableColumn("Top-1"), TableColumn("Top-5")]
    if any_published:
        columns += [TableColumn("Published"), TableColumn("Ours minus\npublished")]
    rows = []
    for teacher in frames.teachers.to_dict("records"):
        finding, here = found[teacher["name"]], teacher["at_hand"]
        row = [TableEntry(teacher["name"], detail=_network(teacher))]
        if here:
            said = teacher["doubts"]
            marks = [("doubtful", "doubtful")] if said else []
            marks += [CONTRADICTED] if teacher["id"] in contradicted else []
            row += [
                TableEntry(number(teacher["test_top1"]), hint=said, marks=tuple(marks)),
                TableEntry(number(teacher["test_top5"])),
            ]
        else:
            missing = (("missing", "not at hand"),)
            row += [TableEntry("", marks=missing, detail=teacher["why"]), TableEntry(ABSENT)]
        if any_published:
            value = finding.published
            row += [
                TableEntry(published_text(value), hint=value.source if value else ""),
                TableEntry(signed(finding.difference)),
            ]
        origin = TableEntry(teacher["origin"], detail=str(teacher["sha256"])[:16] if here else "")
        rows.append((*row, origin))
    return ReportTable(
        key="teachers",
        title="Teachers",
        caption="A teacher is a checkpoint, measured again here before it teaches (top-1 and top-5 "
        "in percent). It is one value without a spread, so it has no verdict; a retrained teacher "
        "is another experiment than the published one, and every verdict on a student holds for "
        "the teacher it had. Below the origin, the head of the weights' SHA-256.",
        columns=(*columns, TableColumn("Origin", number=False)),
        rows=tuple(rows),
    )


def difference_text(verdict: Verdict) -> tuple[str, str]:
    """Return ours minus published, and its 90 % intervals: two where both epochs are compared."""
    means, ranges = [], []
    for comparison in verdict.comparisons:
        if comparison.difference is None:
            return ABSENT, ""
        which = f" ({comparison.epoch})" if len(verdict.comparisons) > 1 else ""
        means.append(f"{signed(comparison.difference.mean)}{which}")
        ranges.append(interval(comparison.difference, EQUIVALENCE_CONFIDENCE))
    return ", ".join(means), "; ".join(dict.fromkeys(ranges))


def verdict_entry(verdict: Verdict) -> TableEntry:
    """Return a verdict, and what would decide it."""
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
        detail = f"undecided by {MAX_SEEDS_TRIED:,} seeds"
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
    stated = TableEntry(published_text(value), sort=value.top1, hint=value.source)
    if verdict is None:
        return [
            stated,
            TableEntry(ABSENT),
            TableEntry("not compared", hint="another recipe"),
            TableEntry(ABSENT),
        ]
    text, ranges = difference_text(verdict)
    gap = verdict.comparisons[0].difference
    return [
        stated,
        TableEntry(text, detail=ranges, sort=gap.mean if gap else None),
        verdict_entry(verdict),
        TableEntry(number(verdict.least_margin), sort=verdict.least_margin),
    ]


def _teacher(pair: PairFinding) -> TableEntry:
    teacher, value = pair.teacher, pair.teacher.published
    detail = f"{number(value.top1)} {value.reported_epoch}" if value else ""
    if teacher.top1 is None:
        return TableEntry("", detail=detail, marks=(("missing", "not at hand"),), link="teachers")
    gap = f", {signed(teacher.difference)}" if value else ""
    return TableEntry(number(teacher.top1), detail=detail + gap, sort=teacher.top1, link="teachers")


def _cell(pair: PairFinding, method: str) -> TableEntry:
    cell = pair.cell(method)
    if cell is None:
        return TableEntry(ABSENT, hint="this pair goes without the method")
    value, detail = cell.published, ""
    if value is not None:
        epoch = {"last": "last", "best": "best", "unstated": "epoch?"}[value.reported_epoch]
        detail = f"{number(value.top1)}{'' if value.n_runs else EXACT_MARK} {epoch}"
        if cell.verdict is not None:
            gap = cell.verdict.comparisons[0].difference
            detail += f", {signed(gap.mean)}" if gap else ""
            detail += f" {verdict_symbol(cell.verdict.kind)}"
    tones = ["best"] * (pair.best == method) + ([cell.verdict.kind] if cell.verdict else [])
    n = f" (n = {cell.done})" if cell.done < cell.expected else ""
    return TableEntry(
        mean_and_sd(cell.last) + n if cell.done else "",
        detail=detail,
        sort=cell.last.mean,
        tone=" ".join(tones),
        link=cell.anchor,
        marks=tuple((mark.kind, mark.text) for mark in cell.marks),
    )


def _runs(cell: CellFinding) -> TableEntry:
    marks = tuple((mark.kind, mark.text) for mark in cell.marks)
    return TableEntry(f"{cell.done} of {cell.expected}", sort=cell.done, marks=marks)


def _gain(cell: CellFinding) -> TableEntry:
    if cell.is_control:
        return TableEntry("reference", sort=0.0)
    if cell.gain is None:
        return TableEntry(ABSENT)
    return TableEntry(signed(cell.gain.mean), detail=interval(cell.gain), sort=cell.gain.mean)


def _network(teacher: dict) -> str:
    return teacher["network"] if teacher["network"] != teacher["name"] else ""


def _width(bounds: tuple[float, float] | None) -> float | None:
    return None if bounds is None else bounds[1] - bounds[0]
