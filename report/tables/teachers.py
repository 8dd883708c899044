"""The table of a study's teachers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from report.formats import ABSENT, number, published_text, signed
from report.frames.cells import PairFinding
from report.frames.study_frames import Frames
from report.names import Names
from report.tables.table import ReportTable, TableColumn, TableEntry

CONTRADICTED = ("contradicted", "contradicted by stored files")
MISSING_TEACHER = ("missing", "not available")


def teachers_table(
    frames: Frames,
    pairs: Sequence[PairFinding],
    names: Names,
    contradicted: Collection[str] = (),
) -> ReportTable:
    """Return the teachers, with their published accuracies if there are any.

    Args:
        frames: the study's frames.
        pairs: its findings.
        names: the display names of networks.
        contradicted: identities of teachers whose stored files contradict their cards.
    """
    findings = {pair.teacher.name: pair.teacher for pair in pairs}
    any_published = any(finding.published for finding in findings.values())
    columns = [
        TableColumn("Teacher", number=False, holds="network"),
        TableColumn("Top-1"),
        TableColumn("Top-5"),
    ]
    if any_published:
        columns += [TableColumn("Published"), TableColumn("Ours minus\npublished")]
    rows = []
    for teacher in frames.teachers.to_dict("records"):
        row = [TableEntry(teacher["name"], detail=_network(teacher, names))]
        row += _accuracies(teacher, contradicted)
        if any_published:
            finding = findings.get(teacher["name"])  # a method's own teacher has none
            value = finding.published if finding else None
            row += [
                TableEntry(published_text(value), hint=value.source if value else ""),
                TableEntry(signed(finding.difference) if finding else ABSENT),
            ]
        digest = str(teacher["sha256"])[:16] if teacher["at_hand"] else ""
        rows.append((*row, TableEntry(teacher["origin"], detail=digest)))
    return ReportTable(
        key="teachers",
        title="Teachers",
        caption="Top-1 and top-5 accuracy in percent of each teacher's checkpoint, as measured by "
        "this project. A teacher is one network, so its accuracy has no standard deviation"
        f"{_about_verdicts(pairs)} Below the origin: the start of the SHA-256 of the weights.",
        columns=(*columns, TableColumn("Origin", number=False)),
        rows=tuple(rows),
    )


def _about_verdicts(pairs: Sequence[PairFinding]) -> str:
    """Return the end of the sentence on teachers; more of it in a study with verdicts."""
    if not any(cell.verdict for pair in pairs for cell in pair.cells):
        return "."
    return (
        " and no verdict. A retrained teacher is not the published one, and every verdict on a "
        "student is valid only for the teacher it had."
    )


def _accuracies(teacher: dict[str, Any], contradicted: Collection[str]) -> list[TableEntry]:
    if not teacher["at_hand"]:
        return [TableEntry("", marks=(MISSING_TEACHER,), detail=teacher["why"]), TableEntry(ABSENT)]
    doubts = teacher["doubts"]
    marks = [("doubtful", "doubtful")] if doubts else []
    marks += [CONTRADICTED] if teacher["id"] in contradicted else []
    return [
        TableEntry(number(teacher["test_top1"]), hint=doubts, marks=tuple(marks)),
        TableEntry(number(teacher["test_top5"])),
    ]


def _network(teacher: dict[str, Any], names: Names) -> str:
    return names.network(teacher["network"]) if teacher["network"] != teacher["name"] else ""
