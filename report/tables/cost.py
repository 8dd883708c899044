"""The table of the methods' training cost."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from report.formats import count, duration, mean_and_sd, mebibytes, number
from report.frames.study_frames import Frames
from report.names import Names
from report.statistics.intervals import summarise
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.expansion import Expansion


def cost_table(expansion: Expansion, frames: Frames, names: Names) -> ReportTable | None:
    """Return a row for each (pair, method) with finished runs, or ``None`` without any."""
    done = frames.runs[frames.runs["outcome"] == "done"]
    if done.empty:
        return None
    rows: list[tuple[TableEntry, ...]] = []
    keeping: dict[str, None] = {}  # in order
    for (teacher, student, method), runs in done.groupby(
        ["teacher", "student", "method"], sort=False
    ):
        extra = expansion.cell_of(teacher, student, method).extra
        first = runs.iloc[0]
        if runs["extra_parameters"].max() < extra.parameters:  # not all were removed
            keeping[method] = None
        step = summarise(1000 * runs["seconds_per_step"].dropna())
        hours = runs["seconds"].sum() / 3600
        rows.append(
            (
                TableEntry(first["pair"]),
                TableEntry(method),
                TableEntry(mean_and_sd(step), sort=step.mean),
                TableEntry(duration(runs["seconds"].mean()), sort=runs["seconds"].mean()),
                TableEntry(number(hours, 3 if hours < 1 else 1), sort=hours),
                _count(runs["images_per_second"].mean()),
                TableEntry(
                    mebibytes(runs["peak_memory_bytes"].max()), sort=runs["peak_memory_bytes"].max()
                ),
                _count(first["parameters"]),
                _count(runs["extra_parameters"].max()),
                _millions(first["multiply_adds"]),
                _millions(extra.multiply_adds),
            )
        )
    return ReportTable(
        key="cost",
        title="Cost of training",
        caption=f"{total_text(frames)} The values are means over finished runs. The time of a "
        "step is that of one batch, ± its standard deviation over runs. Peak memory is the largest "
        "of the runs. Multiply-adds are those of one forward pass on one image. Extra parameters "
        "and multiply-adds belong to modules that are trained with the student and removed after "
        "training, so inference costs the same with every method"
        f"{_except(map(names.method, keeping))}.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, filter=True, holds="method"),
            TableColumn("A step\n(ms)"),
            TableColumn("A run"),
            TableColumn("Device-hours\nin all"),
            TableColumn("Training\nimages/s"),
            TableColumn("Peak\nmemory"),
            TableColumn("Parameters"),
            TableColumn("Extra\nparameters"),
            TableColumn("Multiply-adds\n(M)"),
            TableColumn("Extra multiply-\nadds (M)"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def _except(keeping: Iterable[str]) -> str:
    """Return the exception for methods that keep modules as the student's classifier."""
    listed = " and ".join(keeping)
    return listed and (
        f", except {listed}: what replaces the student's classifier is kept, and counts among the "
        "parameters and multiply-adds of the network"
    )


def total_text(frames: Frames) -> str:
    """Return the total time of the finished runs by device; a run shared by pairs counts once."""
    done = frames.runs[frames.runs["outcome"] == "done"].drop_duplicates("id")
    by_device = done.groupby("device")["seconds"].agg(["sum", "count"])
    parts = [
        f"{number(row['sum'] / 3600, 3 if row['sum'] < 3600 else 1)} hours of {device} for "
        f"{int(row['count'])} runs"
        for device, row in by_device.iterrows()
    ]
    return f"Training and evaluation took {', '.join(parts)}, without the teachers."


def _count(value: float) -> TableEntry:
    return TableEntry(count(value), sort=None if pd.isna(value) else float(value))


def _millions(value: float) -> TableEntry:
    return TableEntry(number(value / 1e6, 1), sort=float(value))
