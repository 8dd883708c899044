"""The result of `skd bench-loader`, as data and as a table. Imports no torch."""

from __future__ import annotations

from statistics import median
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from rich import box
from rich.table import Table

from benchmarks.results import SpeedUp
from skd.common.frozen import FrozenModel

OURS, REFERENCE = "skd", "torchvision"
LOADERS = (OURS, REFERENCE)


class LoaderRow(FrozenModel):
    """One side's images per second in each round."""

    side: Literal["skd", "torchvision"]
    rounds: tuple[PositiveFloat, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


class LoaderComparison(FrozenModel):
    """One run of `skd bench-loader`."""

    schema_version: Literal[1] = 1
    made_at: str = Field(description="ISO 8601, UTC")
    environment: dict[str, Any]
    device: Literal["cpu", "cuda"]
    device_name: str
    folder: str = Field(description="its name, without its path")
    photos: PositiveInt = Field(description="in the folder")
    mean_bytes: PositiveInt = Field(description="of a photo's file")
    median_size: tuple[PositiveInt, PositiveInt] = Field(description="width and height")
    batch_size: PositiveInt
    images: PositiveInt = Field(description="in a round, the same for each side")
    workers: NonNegativeInt
    rows: tuple[LoaderRow, LoaderRow]
    times: SpeedUp = Field(description="how many times as fast our loader is")


def loader_table(comparison: LoaderComparison) -> Table:
    """Return the table of both sides."""
    title = (
        f"Training photos, decoded, augmented and normalised on the device ({comparison.device})"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("side")
    for name in ("images/s, median", "range", "times as fast"):
        table.add_column(name, justify="right")
    for row in comparison.rows:
        span = f"{min(row.rounds):,.0f} to {max(row.rounds):,.0f}"
        times = _times_text(comparison.times) if row.side == OURS else "1"
        table.add_row(row.side, f"{row.median:,.0f}", span, times)
    return table


def loader_notes(comparison: LoaderComparison) -> list[str]:
    """Return lines that explain the numbers."""
    width, height = comparison.median_size
    return [
        f"{comparison.device_name}, {comparison.environment['cpu_count']} cores, "
        f"{comparison.workers} workers a side",
        f"{comparison.folder}: {comparison.photos:,} photos, median {width} x {height} pixels, "
        f"{comparison.mean_bytes / 1000:,.0f} kB a file; {comparison.images:,} of them in each of "
        f"{len(comparison.rows[0].rounds)} rounds, in batches of {comparison.batch_size}",
        f"{REFERENCE}: ImageFolder and DataLoader with the transforms of its training reference, "
        "on PIL; the sides take turns, with the same photos",
    ]


def _times_text(times: SpeedUp) -> str:
    interval = "" if times.low is None else f" [{times.low:.2f}, {times.high:.2f}]"
    return f"{times.value:.2f}{interval}"
