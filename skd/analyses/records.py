"""The files of `skd analyse`: ``analysis.json`` and its arrays. Does not import torch."""

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

Bin = tuple[int, float | None, float | None]


class MeasureBounds(FrozenModel):
    """Lower and upper bounds of the measures of logits before they were rounded."""

    top1: tuple[float, float]
    top5: tuple[float, float]
    loss: tuple[float, float] = Field(description="nats")


class Measures(FrozenModel):
    """Measures of a network's test logits. Accuracies and confidences are percentages."""

    top1: float
    nll: float = Field(description="mean negative log-likelihood of the labels, nats")
    ece: float = Field(description="expected calibration error, 15 bins, %")
    per_class_top1: tuple[float | None, ...] = Field(
        description="none for a class without test images"
    )
    reliability: tuple[Bin, ...] = Field(
        description="of 15 bins of confidence: images, mean confidence, accuracy (none if empty)"
    )
    source: str = Field(description="digest of the inputs of the measurement")
    logits: str | None = Field(None, description="SHA-256 of the logits; none in older files")
    possible: MeasureBounds | None = Field(
        None, description="bounds of the measures; none in older files"
    )


class RunMeasures(Measures):
    """Measures of a student. Comparisons are ``None`` without a teacher with usable logits."""

    agreement: float | None = Field(None, description="% of images with the teacher's prediction")
    teacher_kl: float | None = Field(None, description="mean KL(teacher ‖ student) at T = 1, nats")


class EmbeddingPanel(FrozenModel):
    """The t-SNE of one network."""

    what: str = Field(description="'teacher', or the method")
    id: str
    seed: int | None = Field(description="the first finished seed; none for a teacher")
    key: str = Field(description="(P, 2) float32: mean 0, largest coordinate 1")


class Embedding(FrozenModel):
    """The panels of one pair, with the same test images."""

    labels: str = Field(description="key of the images' classes, (P,) int64")
    panels: tuple[EmbeddingPanel, ...]


class SimplifierExample(FrozenModel):
    """The effect of a run's simplifier on E = 4 test images (fewer for a smaller batch).

    Contains the keys of probabilities, (E, C) float32, and of the images, (E, 3, H, W) uint8.
    """

    pair: str
    method: str
    seed: int
    id: str
    temperature: float = Field(description="T of the simplifier")
    indices: tuple[int, ...] = Field(
        description="indices in the test set, by increasing entropy of the teacher's softmax"
    )
    labels: tuple[int, ...]
    images: str
    raw: str = Field(description="softmax of the teacher's logits")
    softened: str = Field(description="softmax of the teacher's logits divided by T")
    simplified: str = Field(description="softmax of the simplified logits divided by T")
    student: str = Field(description="softmax of the student's logits")


class Analysis(FrozenModel):
    """The content of ``analysis.json``. Its keys are those of the arrays in ``analysis.npz``."""

    version: Literal[1] = 1
    study: str
    dataset: DatasetSpec
    classes: tuple[str, ...] = Field(description="the classes' names, by index")
    runs: dict[str, RunMeasures] = Field(description="measures of finished runs, by identity")
    teachers: dict[str, Measures] = Field(description="measures of teachers, by identity")
    correlations: dict[str, str] = Field(
        description="keys of the correlations between classes' logits, (C, C) float32, of the "
        "teachers and of each cell's first finished run, by identity"
    )
    embeddings: dict[str, Embedding] = Field(description="by pair, TEACHER--STUDENT")
    examples: tuple[SimplifierExample, ...]
    skipped: dict[str, str] = Field(
        description="reasons why results of a run or teacher are missing, by identity"
    )
    altered: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="files that differ from those in the record or card, by identity",
    )


def analysis_path(results: Path, study: str) -> Path:
    """Return the path of a study's analysis."""
    return results / study / "analysis.json"


def arrays_path(results: Path, study: str) -> Path:
    """Return the path of the arrays of a study's analysis."""
    return results / study / "analysis.npz"


def read_analysis(path: Path) -> Analysis | None:
    """Return an analysis, or ``None`` if there is none that this version can read."""
    try:
        return Analysis.model_validate(read_json(path))
    except (OSError, ValueError):
        return None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return an analysis's arrays by key; an empty dict if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
