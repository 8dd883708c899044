"""What `skd analyse` leaves: ``analysis.json`` and the arrays it names. Imports no torch."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from skd.common.files import read_json
from skd.common.frozen import FrozenModel
from skd.study.spec import DatasetSpec

# The methods that are shown side by side, each with a panel or a line, where the study has them.
FEATURE_METHODS = ("student", "kd", "skd")
Bin = tuple[int, float | None, float | None]


class MeasureBounds(FrozenModel):
    """Lowest and highest of what logits may have been measured as before they were rounded."""

    top1: tuple[float, float]
    top5: tuple[float, float]
    loss: tuple[float, float] = Field(description="nats")


class Measures(FrozenModel):
    """Of one network's test logits. Accuracies and confidences are percentages."""

    top1: float
    nll: float = Field(description="mean negative log-likelihood of the labels, nats")
    ece: float = Field(description="expected calibration error, 15 bins, %")
    per_class_top1: tuple[float | None, ...] = Field(
        description="none for a class without test images"
    )
    reliability: tuple[Bin, ...] = Field(
        description="of 15 bins of confidence: images, mean confidence, accuracy (none if empty)"
    )
    source: str = Field(description="digest of what it was measured on")
    logits: str | None = Field(None, description="SHA-256 of the logits; none in older files")
    possible: MeasureBounds | None = Field(None, description="likewise")


class RunMeasures(Measures):
    """A student's. None where there is no teacher, or its logits are not at hand."""

    agreement: float | None = Field(None, description="% of images with the teacher's prediction")
    teacher_kl: float | None = Field(None, description="mean KL(teacher ‖ student) at T = 1, nats")


class EmbeddingPanel(FrozenModel):
    """One network's t-SNE."""

    what: str = Field(description="'teacher', or the method")
    id: str
    seed: int | None = Field(description="the first finished one; none of a teacher")
    key: str = Field(description="(P, 2) float32: mean 0, largest coordinate 1")


class Embedding(FrozenModel):
    """One pair's panels, over the same test images."""

    labels: str = Field(description="key of the images' classes, (P,) int64")
    panels: tuple[EmbeddingPanel, ...]


class SimplifierExample(FrozenModel):
    """What one run's simplifier makes of E = 4 test images (fewer of a smaller batch).

    Keys of probabilities (E, C) float32, and of the images (E, 3, H, W) uint8.
    """

    pair: str
    method: str
    seed: int
    id: str
    temperature: float = Field(description="T of the simplifier")
    indices: tuple[int, ...] = Field(description="places in the test set, by the teacher's entropy")
    labels: tuple[int, ...]
    images: str
    raw: str = Field(description="softmax of the teacher's logits")
    softened: str = Field(description="of the teacher's logits over T")
    simplified: str = Field(description="of the simplified logits over T")
    student: str = Field(description="of the student's logits")


class Analysis(FrozenModel):
    """The file. Arrays are in ``analysis.npz``, by the keys named here."""

    version: Literal[1] = 1
    study: str
    dataset: DatasetSpec
    classes: tuple[str, ...] = Field(description="the classes' names, by index")
    runs: dict[str, RunMeasures] = Field(description="by identity: every finished run")
    teachers: dict[str, Measures] = Field(description="by identity")
    correlations: dict[str, str] = Field(
        description="of the teachers and of each cell's first finished run, by identity: key of "
        "the correlation between classes' logits, (C, C) float32"
    )
    embeddings: dict[str, Embedding] = Field(description="by pair, TEACHER--STUDENT")
    examples: tuple[SimplifierExample, ...]
    skipped: dict[str, str] = Field(
        description="why something of a run or teacher is missing, by identity"
    )
    altered: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="files that are not those that their record or card names, by its identity",
    )


def analysis_path(results: Path, study: str) -> Path:
    """Return where a study's analysis is kept."""
    return results / study / "analysis.json"


def arrays_path(results: Path, study: str) -> Path:
    """Return where the arrays of a study's analysis are kept."""
    return results / study / "analysis.npz"


def read_analysis(path: Path) -> Analysis | None:
    """Return an analysis, or none where there is none that this code can read."""
    try:
        return Analysis.model_validate(read_json(path))
    except (OSError, ValueError):
        return None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return an analysis's arrays by key; none at all where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
