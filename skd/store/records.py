"""What a finished run leaves, as data. Imports no torch: workflow and report read it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, FiniteFloat, TypeAdapter, field_validator

from skd.common.frozen import FrozenModel
from skd.study.spec import RunSpec

SCHEMA_VERSION = 1


class EpochMetrics(FrozenModel):
    """One epoch's metrics. Accuracies are percentages; losses are means over images."""

    epoch: int = Field(description="1-based")
    learning_rate: float
    train_losses: dict[str, float] = Field(
        description="the weighted total, and each term before its weight"
    )
    train_top1: float
    test_loss: float
    test_top1: float
    test_top5: float
    diagnostics: dict[str, float] = Field(
        default_factory=dict, description="what the method watches, as SKD its simplifier"
    )
    seconds: float = Field(description="training and evaluation, without checkpoints")
    images_per_second: float = Field(description="training images, evaluation not counted")


class Accuracy(FrozenModel):
    """Test accuracy in percent, and the epoch it was measured at."""

    epoch: int
    top1: float
    top5: float


class Collapse(FrozenModel):
    """Whether the simplified teacher still teaches: see docs/assumptions.md, "The collapse"."""

    collapsed: bool
    reason: str = Field(description="empty while the teacher still teaches")
    first_epoch: int | None = Field(None, description="the first epoch at which it had collapsed")


class Cost(FrozenModel):
    """What a run took."""

    train_seconds: float = Field(description="over all epochs that count, resumed or not")
    seconds_per_epoch: float
    images_per_second: float
    peak_memory_bytes: int = Field(description="of the process, or of the device's allocator")
    gpu_utilisation: float | None = Field(
        None, description="% of the time that a kernel ran, sampled; others on the GPU count too"
    )
    parameters: int
    extra_parameters: int = Field(description="trained beside the network, then thrown away")
    extra_memory_bytes: int | None = Field(
        None, description="of what is beside the network: parameters and buffers, as memory banks"
    )
    multiply_adds: int = Field(description="of one forward pass on one image")
    sessions: int = Field(description="1 for a run that was never interrupted")


class TeacherCard(FrozenModel):
    """A teacher at hand: where it comes from, and what it was measured to do here."""

    id: str
    kind: Literal["trained", "imported"]
    network: str
    dataset: str
    origin: str = Field(description="'trained here, seed 0', or the imported file or URL")
    test_top1: float
    test_top5: float
    sha256: str = Field(description="of the stored weights")
    source_sha256: str | None = Field(None, description="of the imported file")
    parameters: int


class Record(FrozenModel):
    """A finished run. Written once, at the end, atomically."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    spec: RunSpec
    environment: dict[str, Any]
    execution: dict[str, Any]
    num_classes: int
    epochs: tuple[EpochMetrics, ...]
    last: Accuracy
    best: Accuracy
    cost: Cost
    teacher: TeacherCard | None = None
    collapse: Collapse | None = Field(None, description="none where there is no simplifier")
    files: dict[str, str] = Field(description="SHA-256 of the files beside the record")
    code: dict[str, str] | None = Field(
        None,
        description="digests of the source files that its numbers depend on, by path; of a file "
        "that changed between its sessions all of them, joined by +",
    )
    finished_at: str


class Failure(FrozenModel):
    """Why a run has no record. The next invocation tries it again."""

    id: str
    reason: str
    kind: str = Field(description="the error's class")
    repeats: bool = Field(False, description="whether another attempt would only fail again")
    details: str = Field(description="the traceback")
    epoch: int = Field(description="finished epochs when it failed")
    failed_at: str = Field(description="ISO 8601, UTC")
    environment: dict[str, Any]

    @field_validator("failed_at")
    @classmethod
    def _with_a_time_zone(cls, value: str) -> str:
        TypeAdapter(AwareDatetime).validate_python(value)
        return value


class ProgressNote(FrozenModel):
    """How far a run under way is."""

    epoch: int = Field(description="finished epochs")
    epochs: int
    images_per_second: FiniteFloat
    seconds_left: FiniteFloat
    at: FiniteFloat = Field(description="when this was so, in seconds since 1970")


class RunOutcome(FrozenModel):
    """What came of one run of a cell."""

    id: str
    seed: int
    outcome: Literal["done", "failed", "unreadable", "interrupted", "running", "missing"]
    last_top1: float | None = None
    best_top1: float | None = None
    reason: str | None = None


class CellResult(FrozenModel):
    """A cell's declared output: names its runs and says what came of each."""

    study: str
    cell: str
    runs: tuple[RunOutcome, ...]
