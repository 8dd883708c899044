"""Marks on a cell: what a reader must know about its runs before using its numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from report.formats import plural
from report.frames.code_columns import code_marks


@dataclass(frozen=True)
class Mark:
    """A reservation about a cell, such as failed runs or a mix of teachers.

    Attributes:
        kind: its style in the page.
        text: a few words.
        hint: what hovering shows.
    """

    kind: str
    text: str
    hint: str = ""


def marks_of(
    cell: pd.DataFrame,
    pair_teachers: Collection[str],
    teacher_sha256: str | None,
    contradicted: Collection[str] = (),
    code_states: int = 1,
) -> tuple[Mark, ...]:
    """Return the marks of a cell, the most serious first.

    Args:
        cell: the cell's rows of the frame of runs.
        pair_teachers: hashes of the weights of all teachers of the pair's runs.
        teacher_sha256: hash of the stored teacher's weights, or ``None``.
        contradicted: identities of runs whose stored files contradict their records.
        code_states: number of versions of the code among the study's finished runs.
    """
    marks = []
    if n := int(cell["id"].isin(contradicted).sum()):
        marks.append(Mark("contradicted", f"{plural(n, 'run')} contradicted by stored files"))
    if n := int(cell["collapsed"].eq(True).sum()):
        marks.append(Mark("collapsed", f"{n} collapsed"))
    marks += [Mark(*mark) for mark in code_marks(cell, code_states)]
    marks += _teacher_marks(cell, pair_teachers, teacher_sha256)
    counts = cell["outcome"].value_counts()
    for kind in ("failed", "unreadable", "interrupted", "running"):
        if n := int(counts.get(kind, 0)):
            marks.append(Mark(kind, f"{n} {kind}"))
    if missing := int(counts.get("missing", 0)):
        text = "not run" if missing == len(cell) else f"{missing} not run"
        marks.append(Mark("missing", text))
    return tuple(marks)


def _teacher_marks(
    cell: pd.DataFrame, pair_teachers: Collection[str], teacher_sha256: str | None
) -> list[Mark]:
    teachers = set(cell["teacher_sha256"].dropna())
    if len(teachers) > 1:
        return [Mark("mixed", f"mixes {len(teachers)} teachers")]
    if teachers and isinstance(teacher_sha256, str) and teachers != {teacher_sha256}:
        return [Mark("mixed", "trained with other teacher weights than the stored ones")]
    if teachers and len(pair_teachers) > 1:
        return [Mark("mixed", f"the pair's runs have {len(pair_teachers)} different teachers")]
    return []
