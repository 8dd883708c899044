"""ImageNet, top-1 and top-5: this study's results, or what is published beside another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from report.formats import ABSENT, number, published_text, signed, spread
from report.frames.cells import CellFinding, PairFinding, TeacherFinding
from report.table_model import Column, Entry, Table
from report.tables.results import against_published
from skd.study.published import Key, PublishedValue

KEY, TITLE = "imagenet", "ImageNet"


def imagenet_table(pairs: Sequence[PairFinding]) -> Table:
    """Return a row a teacher and a (pair, method) of a study of ImageNet, beside what is published.

    Top-5 has no verdict: the margin is one of top-1.
    """
    rows = []
    for pair in pairs:
        rows.append((Entry(pair.pair), Entry("teacher", link="teachers"), *_teacher(pair.teacher)))
        rows += [
            (Entry(cell.pair), Entry(cell.method, link=cell.anchor), *_cell(cell))
            for cell in pair.cells
        ]
    return Table(
        key=KEY,
        title=TITLE,
        caption="Top-1 and top-5 accuracy in percent at the last epoch, mean ± sample standard "
        "deviation over seeds, beside the published values. Verdicts are of top-1, as in the "
        "table of every cell; a teacher and top-5 have none. The pairs are the field's two usual "
        "ones; which of them the SKD paper used is not known.",
        columns=(
            Column("Pair", number=False, filter=True),
            Column("Method", number=False, filter=True),
            Column("Top-1"),
            Column("Published\ntop-1"),
            Column("Ours minus\npublished"),
            Column("Verdict", number=False, filter=True),
            Column("Top-5"),
            Column("Published\ntop-5"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def published_imagenet_table(published: Mapping[Key, PublishedValue], study: str | None) -> Table:
    """Return the published values; ``study`` is the one here that has runs to compare, if any."""
    verdict = Entry("not run", tone="not run") if study is None else Entry(f"see study {study}")
    return Table(
        key=KEY,
        title=TITLE,
        caption="Published top-1 and top-5 accuracy in percent for the field's two usual pairs. "
        "Which of them the SKD paper used is not known.",
        columns=(
            Column("Pair", number=False),
            Column("Method", number=False),
            Column("Published top-1"),
            Column("Published top-5"),
            Column("Verdict", number=False),
        ),
        rows=tuple(
            (
                Entry(f"{value.teacher} → {value.student}"),
                Entry(value.method),
                Entry(published_text(value), hint=value.source),
                Entry(number(value.top5)),
                verdict,
            )
            for value in published.values()
        ),
    )


def _teacher(teacher: TeacherFinding) -> tuple[Entry, ...]:
    missing = (("missing", "not at hand"),) if teacher.top1 is None else ()
    value = teacher.published
    return (
        Entry("" if missing else number(teacher.top1), sort=teacher.top1, marks=missing),
        Entry(published_text(value), hint=value.source if value else ""),
        Entry(signed(teacher.difference), sort=teacher.difference),
        Entry(ABSENT),
        Entry(number(teacher.top5), sort=teacher.top5),
        _published_top5(value),
    )


def _cell(cell: CellFinding) -> tuple[Entry, ...]:
    marks = tuple((mark.kind, mark.text) for mark in cell.marks)
    published, difference, verdict, _ = against_published(cell)
    return (
        Entry(spread(cell.last) if cell.done else "", sort=cell.last.mean, marks=marks),
        published,
        difference,
        verdict,
        Entry(spread(cell.top5), sort=cell.top5.mean),
        _published_top5(cell.published),
    )


def _published_top5(value: PublishedValue | None) -> Entry:
    top5 = value.top5 if value else None
    return Entry(number(top5), sort=top5)
