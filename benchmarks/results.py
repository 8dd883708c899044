"""The result of `skd bench` as data. Imports no torch, because the report reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from skd.common.errors import SkdError
from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel
from skd.store.json_files import unreadable_reason
from skd.study.spec import DatasetSpec

SCHEMA_VERSION = 1


class BenchError(SkdError):
    """A benchmark cannot be run or read. The message says what to do."""


class SpeedUp(FrozenModel):
    """How many times as fast a side is as its reference: the median of the rounds' ratios."""

    value: PositiveFloat
    low: PositiveFloat | None = Field(
        None, description="of the 95 % interval; none for fewer than six rounds"
    )
    high: PositiveFloat | None = None


class BenchmarkRow(FrozenModel):
    """One side's measurement of one (pair, method). A failed one has a reason and no numbers."""

    pair: str
    method: str
    teacher: str | None = Field(
        description="its name in the sheet; none if the method needs no teacher"
    )
    student: str
    side: str = Field(description="skd, skd-live, plain or mdistiller: see benchmarks.side_names")
    variant: str | None = Field(
        None,
        description="of our side, see benchmarks.variants; none for other sides and in old files",
    )
    how: dict[str, Any] = Field(
        default_factory=dict,
        description="the side's description of itself: teacher (live, views, none), teacher's "
        "weights, precision, memory format, lanes, workers, …",
    )
    batch_size: PositiveInt = Field(description="images in a step of one run")
    lanes: PositiveInt = Field(1, description="runs that step together")
    steps_per_epoch: PositiveInt
    rounds: tuple[PositiveFloat, ...] = Field((), description="seconds a step, of all lanes")
    plain_rounds: tuple[PositiveFloat, ...] = Field(
        (), description="seconds a step of the plain loop in the same rounds"
    )
    evaluations: tuple[PositiveFloat, ...] = Field((), description="seconds, of all lanes")
    seconds_per_step: PositiveFloat | None = Field(None, description="the rounds' median")
    images_per_second: PositiveFloat | None = Field(None, description="of all lanes, training")
    evaluation_seconds: PositiveFloat | None = Field(None, description="the evaluations' median")
    evaluation_share: PositiveFloat | None = Field(None, description="of an epoch")
    seconds_per_epoch: PositiveFloat | None = Field(
        None, description="of one run: steps and evaluation, over the lanes that share them"
    )
    peak_memory_bytes: NonNegativeInt | None = Field(
        None, description="of the device's allocator; on a CPU, of the process and its workers"
    )
    multiply_adds: NonNegativeInt | None = Field(
        None,
        description="of a step of all lanes: 3 x (student + extra modules) + live teacher",
    )
    share_of_peak: PositiveFloat | None = None
    speed_up: SpeedUp | None = Field(None, description="over plain; none if plain failed")
    failure: str | None = None
    unfit: bool = Field(False, description="not an error: the side has no such method or network")
    skipped: bool = Field(False, description="not an error: time was up before the first round")

    @property
    def steps_per_second(self) -> float | None:
        """Training steps per second, summed over the lanes."""
        return None if self.seconds_per_step is None else self.lanes / self.seconds_per_step

    @property
    def name(self) -> str:
        """The row's label among the rows of its case."""
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.side}{variant}"


class HardwarePeak(FrozenModel):
    """The peak performance of the hardware, as measured by the benchmark."""

    precision: str
    multiply_adds_per_second: PositiveFloat
    measured_by: str


class ViewsCost(FrozenModel):
    """The cost of computing a teacher's logits on every view of every training image once."""

    teacher: str
    views: PositiveInt | None = Field(None, description="of one image")
    images: PositiveInt | None = None
    seconds: PositiveFloat | None = Field(
        None, description="to compute the outputs for the whole data set"
    )
    measured_share: PositiveFloat | None = Field(
        None,
        le=1,
        description="of the work; the seconds are extrapolated from it",
    )
    bytes: PositiveInt | None = None
    pays_after_runs: dict[str, float | None] = Field(
        default_factory=dict,
        description="by pair/method: seconds over the time that a run saves; null: no time saved",
    )
    failure: str | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether only a part was measured."""
        return self.measured_share is not None and self.measured_share < 1


class BenchmarkResult(FrozenModel):
    """One run of `skd bench`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    made_at: str = Field(description="ISO 8601, UTC")
    environment: dict[str, Any]
    study: str
    dataset: DatasetSpec
    device: Literal["cpu", "cuda"]
    device_name: str
    threads: PositiveInt
    round_steps: PositiveInt = Field(description="steps timed in a round, at most")
    minutes: NonNegativeFloat | None = Field(None, description="time limit of the whole benchmark")
    epochs: PositiveInt = Field(description="of a run of the study")
    peaks: dict[str, HardwarePeak] = Field(default_factory=dict, description="by precision")
    rows: tuple[BenchmarkRow, ...] = ()
    teacher_views: tuple[ViewsCost, ...] = ()

    @property
    def failures(self) -> list[str]:
        """The failed measurements, without unfit and skipped ones."""
        rows = [f"{row.pair}/{row.method}, {row.name}" for row in self.rows if _failed(row)]
        return rows + [f"views of {row.teacher}" for row in self.teacher_views if row.failure]


def _failed(row: BenchmarkRow) -> bool:
    return row.failure is not None and not (row.unfit or row.skipped)


def write_benchmark(comparison: BenchmarkResult, path: Path) -> None:
    """Write a comparison as JSON, atomically."""
    write_json(path, comparison.model_dump(mode="json"))


def read_benchmark(path: Path) -> BenchmarkResult:
    """Read what `write_benchmark` wrote.

    Raises:
        BenchError: the file does not exist, or does not have the expected content.
    """
    try:
        return BenchmarkResult.model_validate(read_json(path))
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist; create it with: skd bench") from None
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{path} {unreadable_reason(error)}; create it again with: skd bench"
        ) from error
