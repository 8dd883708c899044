"""What `skd bench-loader` leaves, as data and as a table. Imports no torch."""

from __future__ import annotations

from statistics import median
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from rich import box
from rich.table import Table

from skd.common.frozen import Frozen

OURS, REFERENCE = "skd", "torchvision"
SIDES = (OURS, REFERENCE)


class LoaderRow(Frozen):
    """One side's images a second in each round."""

    side: Literal["skd", "torchvision"]
    rounds: tuple[PositiveFloat, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return median(self.rounds)


class Times(Frozen):
    """How many times as fast ours is: the median of the rounds' ratios."""

    value: PositiveFloat
    low: PositiveFloat | None = Field(
        None, description="of the 95 % interval; none of fewer than six rounds"
    )
    high: PositiveFloat | None = None


class LoaderComparison(Frozen):
    """One run of `skd bench-loader`."""

    schema_version: Literal[1] = 1
    made_at: str = Field(description="ISO 8601, UTC")
    environment: dict[str, Any]
    device: Literal["cpu", "cuda"]
    device_name: str
    folder: str = Field(description="its name, without where it lies")
    photos: PositiveInt = Field(description="in the folder")
    mean_bytes: PositiveInt = Field(description="of a photo's file")
    median_size: tuple[PositiveInt, PositiveInt] = Field(description="width and height")
    batch_size: PositiveInt
    images: PositiveInt = Field(description="in a round, of each side, the same ones")
    workers: NonNegativeInt
    rows: tuple[LoaderRow, LoaderRow]
    times: Times


def table(made: LoaderComparison) -> Table:
    """Return the table of both sides."""
    title = f"Training photos, decoded, augmented and normalised on the device ({made.device})"
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    shown.add_column("side")
    for name in ("images/s, median", "range", "times as fast"):
        shown.add_column(name, justify="right")
    for row in made.rows:
        span = f"{min(row.rounds):,.0f} to {max(row.rounds):,.0f}"
        times = _times(made.times) if row.side == OURS else "1"
        shown.add_row(row.side, f"{row.median:,.0f}", span, times)
    return shown


def notes(made: LoaderComparison) -> list[str]:
    """Return lines on what the numbers are."""
    width, height = made.median_size
    return [
        f"{made.device_name}, {made.environment['cpu_count']} cores, {made.workers} workers a side",
        f"{made.folder}: {made.photos:,} photos, median {width} x {height} pixels, "
        f"{made.mean_bytes / 1000:,.0f} kB a file; {made.images:,} of them in each of "
        f"{len(made.rows[0].rounds)} rounds, in batches of {made.batch_size}",
        f"{REFERENCE}: ImageFolder and DataLoader with the transforms of its training reference, "
        "on PIL; the sides take turns, with the same photos",
    ]


def _times(times: Times) -> str:
    interval = "" if times.low is None else f" [{times.low:.2f}, {times.high:.2f}]"
    return f"{times.value:.2f}{interval}"
