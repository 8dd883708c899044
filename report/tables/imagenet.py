"""The table of top-1 and top-5 accuracies on ImageNet: this study's, or only the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from report.formats import ABSENT, mean_and_sd, number, published_text, signed
from report.frames.cells import CellFinding, PairFinding, TeacherFinding
from report.tables.results import against_published
from report.tables.table import ReportTable, TableColumn, TableEntry
from report.tables.teachers import MISSING_TEACHER
from skd.study.published import PublishedKey, PublishedValue

KEY, TITLE = "imagenet", "ImageNet"


def imagenet_table(pairs: Sequence[PairFinding]) -> ReportTable:
    """Return a row for each teacher and (pair, method) of a study of ImageNet.

    Each row has the published values. Top-5 has no verdict, because the margin is for top-1.
    """
    rows = []
    for pair in pairs:
        rows.append(
            (TableEntry(pair.pair), TableEntry("Teacher", link="teachers"), *_teacher(pair.teacher))
        )
        rows += [
            (TableEntry(cell.pair), TableEntry(cell.method, link=cell.anchor), *_cell(cell))
            for cell in pair.cells
        ]
    return ReportTable(
        key=KEY,
        title=TITLE,
        caption="Top-1 and top-5 accuracy in percent at the last epoch, mean ± sample standard "
        "deviation over seeds, with the published values. The verdicts are for top-1, as in the "
        "table of all methods in full; teachers and top-5 have no verdict. The pairs are the "
        "two that are common in the literature; which of them the SKD paper used is not known.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, filter=True, holds="method"),
            TableColumn("Top-1"),
            TableColumn("Published\ntop-1"),
            TableColumn("Ours minus\npublished"),
            TableColumn("Verdict", number=False, filter=True),
            TableColumn("Top-5"),
            TableColumn("Published\ntop-5"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def published_imagenet_table(
    published: Mapping[PublishedKey, PublishedValue], study: str | None
) -> ReportTable:
    """Return the published values.

    ``study`` is the name of the study in the results folder with runs to compare, or ``None``.
    """
    verdict = (
        TableEntry("not run", tone="not run") if study is None else TableEntry(f"see study {study}")
    )
    return ReportTable(
        key=KEY,
        title=TITLE,
        caption="Published top-1 and top-5 accuracy in percent of the two pairs that are common in "
        "the literature. Which of them the SKD paper used is not known.",
        columns=(
            TableColumn("Pair", number=False, holds="pair"),
            TableColumn("Method", number=False, holds="method"),
            TableColumn("Published top-1"),
            TableColumn("Published top-5"),
            TableColumn("Verdict", number=False),
        ),
        rows=tuple(
            (
                TableEntry(f"{value.teacher} → {value.student}"),
                TableEntry("Teacher" if value.method == "teacher" else value.method),
                TableEntry(published_text(value), hint=value.source),
                TableEntry(number(value.top5)),
                verdict,
            )
            for value in published.values()
        ),
    )


def _teacher(teacher: TeacherFinding) -> tuple[TableEntry, ...]:
    missing = (MISSING_TEACHER,) if teacher.top1 is None else ()
    value = teacher.published
    return (
        TableEntry("" if missing else number(teacher.top1), sort=teacher.top1, marks=missing),
        TableEntry(published_text(value), hint=value.source if value else ""),
        TableEntry(signed(teacher.difference), sort=teacher.difference),
        TableEntry(ABSENT),
        TableEntry(number(teacher.top5), sort=teacher.top5),
        _published_top5(value),
    )


def _cell(cell: CellFinding) -> tuple[TableEntry, ...]:
    marks = tuple((mark.kind, mark.text) for mark in cell.marks)
    published, difference, verdict, _ = against_published(cell)
    return (
        TableEntry(mean_and_sd(cell.last) if cell.done else "", sort=cell.last.mean, marks=marks),
        published,
        difference,
        verdict,
        TableEntry(mean_and_sd(cell.top5), sort=cell.top5.mean),
        _published_top5(cell.published),
    )


def _published_top5(value: PublishedValue | None) -> TableEntry:
    top5 = value.top5 if value else None
    return TableEntry(number(top5), sort=top5)
