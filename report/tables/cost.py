"""What the methods cost."""

from __future__ import annotations

import pandas as pd

from report.formats import count, duration, mebibytes, number, spread
from report.frames.frame import Frames
from report.statistics.intervals import summarise
from report.table_model import Column, Entry, Table
from skd.study.expansion import Expansion


def cost_table(expansion: Expansion, frames: Frames) -> Table | None:
    """Return a row a (pair, method) with finished runs, or none without any."""
    done = frames.runs[frames.runs["outcome"] == "done"]
    if done.empty:
        return None
    rows = []
    for (teacher, student, method), runs in done.groupby(
        ["teacher", "student", "method"], sort=False
    ):
        extra = expansion.cell_of(teacher, student, method).extra
        first = runs.iloc[0]
        step = summarise(1000 * runs["seconds_per_step"].dropna())
        hours = runs["seconds"].sum() / 3600
        rows.append(
            (
                Entry(first["pair"]),
                Entry(method),
                Entry(spread(step), sort=step.mean),
                Entry(duration(runs["seconds"].mean()), sort=runs["seconds"].mean()),
                Entry(number(hours, 3 if hours < 1 else 1), sort=hours),
                _count(runs["images_per_second"].mean()),
                Entry(
                    mebibytes(runs["peak_memory_bytes"].max()), sort=runs["peak_memory_bytes"].max()
                ),
                _count(first["parameters"]),
                _count(runs["extra_parameters"].max()),
                _millions(first["multiply_adds"]),
                _millions(extra.multiply_adds),
            )
        )
    return Table(
        key="cost",
        title="Cost of training",
        caption=f"{total_text(frames)} Means over finished runs; time a step is of one batch, "
        "with its standard deviation over runs, and peak memory is the largest. Extra parameters "
        "and multiply-adds are of what is trained beside the student and thrown away; "
        "multiply-adds are of one forward pass on one image. At inference every method costs the "
        "student alone.",
        columns=(
            Column("Pair", number=False, filter=True),
            Column("Method", number=False, filter=True),
            Column("A step\n(ms)"),
            Column("A run"),
            Column("Device-hours\nin all"),
            Column("Training\nimages/s"),
            Column("Peak\nmemory"),
            Column("Parameters"),
            Column("Extra\nparameters"),
            Column("Multiply-adds\n(M)"),
            Column("Extra multiply-\nadds (M)"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def total_text(frames: Frames) -> str:
    """Return what all finished runs took together, by device; a run shared by pairs counts once."""
    done = frames.runs[frames.runs["outcome"] == "done"].drop_duplicates("id")
    by_device = done.groupby("device")["seconds"].agg(["sum", "count"])
    parts = [
        f"{number(row['sum'] / 3600, 3 if row['sum'] < 3600 else 1)} hours of {device} for "
        f"{int(row['count'])} runs"
        for device, row in by_device.iterrows()
    ]
    return f"Training and evaluation took {', '.join(parts)}, teachers not counted."


def _count(value: float) -> Entry:
    return Entry(count(value), sort=None if pd.isna(value) else float(value))


def _millions(value: float) -> Entry:
    return Entry(number(value / 1e6, 1), sort=float(value))
