"""Models of the store's files: records, cards, notes and outcomes of runs. Imports no torch."""

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
        description="the weighted total, and each term without its weight"
    )
    train_top1: float
    test_loss: float
    test_top1: float
    test_top5: float
    diagnostics: dict[str, float] = Field(
        default_factory=dict, description="diagnostics of the method, such as of SKD's simplifier"
    )
    seconds: float = Field(description="training and evaluation, without checkpoints")
    images_per_second: float = Field(description="training images, without evaluation")


class Accuracy(FrozenModel):
    """Test accuracy in percent, and its epoch."""

    epoch: int
    top1: float
    top5: float


class Collapse(FrozenModel):
    """Whether the simplified teacher still teaches: see docs/assumptions.md, "The collapse"."""

    collapsed: bool
    reason: str = Field(description="empty if it has not collapsed")
    first_epoch: int | None = Field(None, description="the first epoch after the collapse")


class Cost(FrozenModel):
    """Time and memory of a run."""

    train_seconds: float = Field(description="of all epochs in the record, over all sessions")
    seconds_per_epoch: float
    images_per_second: float
    peak_memory_bytes: int = Field(description="of the process, or of the device's allocator")
    gpu_utilisation: float | None = Field(
        None,
        description="% of the time in which a kernel ran, sampled; other processes count too",
    )
    parameters: int
    extra_parameters: int = Field(description="trained with the network, then discarded")
    extra_memory_bytes: int | None = Field(
        None, description="of the objective's parameters and buffers, memory banks included"
    )
    multiply_adds: int = Field(description="of one forward pass on one image")
    sessions: int = Field(description="1 for a run that was never interrupted")


class TeacherCard(FrozenModel):
    """A teacher in the store: its origin and its measured accuracy."""

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
    partner: str | None = Field(
        None, description="network of the student that it was trained to suit"
    )


class Record(FrozenModel):
    """A finished run. It is written once, atomically, at the end."""

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
    collapse: Collapse | None = Field(None, description="none without a simplifier")
    files: dict[str, str] = Field(description="SHA-256 of the files in the record's folder")
    code: dict[str, str] | None = Field(
        None,
        description="digests of the source files that its numbers depend on, by path; if a file "
        "changed between sessions, its digests are joined by +",
    )
    finished_at: str


class Failure(FrozenModel):
    """Why a run failed. The next command tries the run again."""

    id: str
    reason: str
    kind: str = Field(description="the error's class")
    repeats: bool = Field(False, description="whether another attempt would fail again")
    details: str = Field(description="the traceback")
    epoch: int = Field(description="number of finished epochs")
    failed_at: str = Field(description="ISO 8601, UTC")
    environment: dict[str, Any]

    @field_validator("failed_at")
    @classmethod
    def _with_a_time_zone(cls, value: str) -> str:
        TypeAdapter(AwareDatetime).validate_python(value)
        return value


class ProgressNote(FrozenModel):
    """How far a running training is."""

    epoch: int = Field(description="number of finished epochs")
    epochs: int
    images_per_second: FiniteFloat
    seconds_left: FiniteFloat
    at: FiniteFloat = Field(description="time of this note, in seconds since 1970")


class RunOutcome(FrozenModel):
    """Outcome of one run of a cell."""

    id: str
    seed: int
    outcome: Literal["done", "failed", "unreadable", "interrupted", "running", "missing"]
    last_top1: float | None = None
    best_top1: float | None = None
    reason: str | None = None


class CellResult(FrozenModel):
    """Outcomes of a cell's runs: the output file that the workflow declares."""

    study: str
    cell: str
    runs: tuple[RunOutcome, ...]
