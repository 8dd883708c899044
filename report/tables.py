"""The report's tables as data, independent of how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from report.formats import plural
from report.frame import Frames
from report.literature import Key, PublishedValue
from report.statistics import Difference, Summary, paired_difference, summarise
from skd.study import Expansion

CONTROL = "student"  # the method that every gain is measured against: the student alone


@dataclass(frozen=True)
class Mark:
    """Something a reader must know of a cell: how many runs, and what came of them."""

    kind: str
    text: str


@dataclass(frozen=True)
class Row:
    """One (pair, method) of the main table."""

    method: str
    is_control: bool
    has_simplifier: bool
    last: Summary
    best: Summary
    done: int
    expected: int
    gain: Difference | None
    published: PublishedValue | None
    against_published: float | None
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class PairTable:
    """One pair's rows of the main table."""

    teacher: str
    student: str
    pair: str
    teacher_top1: float | None
    teacher_published: PublishedValue | None
    rows: tuple[Row, ...]


def main_table(
    expansion: Expansion, frames: Frames, published: Mapping[Key, PublishedValue]
) -> list[PairTable]:
    """Return the table pair × method, in the order of the study's sheet."""
    teachers = frames.teachers.set_index("name")
    tables = []
    for (teacher, student), runs in frames.runs.groupby(["teacher", "student"], sort=False):
        network = teachers.at[teacher, "network"]
        control = accuracy_by_seed(runs, CONTROL)
        rows = tuple(
            _row(
                expansion.cell_of(teacher, student, method).spec.method.simplifier is not None,
                cell,
                control,
                published.get((network, student, method)),
            )
            for method, cell in runs.groupby("method", sort=False)
        )
        tables.append(
            PairTable(
                teacher=teacher,
                student=student,
                pair=runs["pair"].iloc[0],
                teacher_top1=_or_none(teachers.at[teacher, "test_top1"]),
                teacher_published=published.get((network, student, "teacher")),
                rows=rows,
            )
        )
    return tables


def accuracy_by_seed(runs: pd.DataFrame, method: str) -> dict[int, float]:
    """Return the last-epoch top-1 of one pair's finished runs of a method, by seed."""
    done = runs[(runs["method"] == method) & (runs["outcome"] == "done")]
    return {int(s): float(a) for s, a in zip(done["seed"], done["last_top1"], strict=True)}


def marks_of(cell: pd.DataFrame) -> tuple[Mark, ...]:
    """Return what must be said of a cell's runs, the gravest first."""
    collapsed = int(cell["collapsed"].eq(True).sum())
    counts = cell["outcome"].value_counts()
    marks = [Mark("collapsed", f"{collapsed} collapsed")] if collapsed else []
    for kind in ("failed", "unreadable", "interrupted", "running"):
        if n := int(counts.get(kind, 0)):
            marks.append(Mark(kind, f"{n} {kind}"))
    if missing := int(counts.get("missing", 0)):
        text = "not run" if missing == len(cell) else f"{missing} not run"
        marks.append(Mark("missing", text))
    return tuple(marks)


def failures(frames: Frames) -> pd.DataFrame:
    """Return the runs that failed or cannot be read, each once, with their reasons."""
    bad = frames.runs[frames.runs["outcome"].isin(["failed", "unreadable"])]
    return bad.drop_duplicates("id")


def collapses(frames: Frames) -> pd.DataFrame:
    """Return the runs whose simplified teacher no longer teaches, each once."""
    return frames.runs[frames.runs["collapsed"].eq(True)].drop_duplicates("id")


def cost_table(frames: Frames) -> pd.DataFrame:
    """Return the mean cost of finished runs by pair and method."""
    done = frames.runs[frames.runs["outcome"] == "done"]
    columns = {
        "seconds": "mean",
        "images_per_second": "mean",
        "peak_memory_bytes": "max",
        "parameters": "first",
        "extra_parameters": "max",
        "extra_memory_bytes": "max",
        "sessions": "max",
    }
    return done.groupby(["pair", "method"], sort=False).agg(columns).reset_index()


def outcome_counts(frames: Frames) -> dict[str, int]:
    """Return how many distinct runs came to each outcome."""
    counts: dict[str, int] = {}
    for reading in frames.readings.values():
        counts[reading.outcome] = counts.get(reading.outcome, 0) + 1
    return counts


def outcome_phrase(counts: Mapping[str, int]) -> str:
    """Return the counts in words: how many of the expected runs are done, and the rest."""
    total = sum(counts.values())
    names = {"missing": "not run"}
    rest = [
        f"{counts[kind]} {names.get(kind, kind)}"
        for kind in ("failed", "unreadable", "interrupted", "running", "missing")
        if counts.get(kind)
    ]
    return ", ".join([f"{counts.get('done', 0)} of {plural(total, 'run')} done", *rest])


def _row(
    has_simplifier: bool,
    cell: pd.DataFrame,
    control: Mapping[int, float],
    published: PublishedValue | None,
) -> Row:
    method = cell["method"].iloc[0]
    done = cell[cell["outcome"] == "done"]
    last, best = summarise(done["last_top1"]), summarise(done["best_top1"])
    by_epoch = {"last": last.mean, "best": best.mean}
    alike = by_epoch.get(published.reported_epoch) if published else None
    return Row(
        method=method,
        is_control=method == CONTROL,
        has_simplifier=has_simplifier,
        last=last,
        best=best,
        done=len(done),
        expected=len(cell),
        gain=None
        if method == CONTROL
        else paired_difference(accuracy_by_seed(done, method), control),
        published=published,
        against_published=None if alike is None or published is None else alike - published.top1,
        marks=marks_of(cell),
    )


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
