"""The output of `skd analyse` (``analysis.json`` and ``analysis.npz``), arranged by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from report.formats import plural
from report.frames.study_frames import Frames
from skd.analyses.consistency import RecordChecks
from skd.analyses.records import (
    Analysis,
    RunMeasures,
    analysis_path,
    arrays_path,
    read_analysis,
    read_arrays,
)

MEASURES = ("nll", "ece", "agreement", "teacher_kl")


@dataclass(frozen=True)
class ExampleArrays:
    """A simplifier's effect on some images of one batch, as probabilities, each (E, C)."""

    method: str
    seed: int
    temperature: float
    labels: tuple[int, ...]
    images: np.ndarray
    raw: np.ndarray
    softened: np.ndarray
    simplified: np.ndarray
    student: np.ndarray


@dataclass(frozen=True)
class PairAnalysis:
    """One pair's analyses.

    Attributes:
        runs: measures of the analysed runs, by method.
        correlations: class correlations (C, C) of one seed, by method.
        embeddings: points (P, 2) by network, the teacher first.
        embedding_labels: the points' classes, (P,).
    """

    pair: str
    classes: tuple[str, ...]
    runs: Mapping[str, list[RunMeasures]]
    teacher_correlation: np.ndarray | None
    correlations: Mapping[str, np.ndarray]
    embeddings: Mapping[str, np.ndarray]
    embedding_labels: np.ndarray
    examples: tuple[ExampleArrays, ...]


@dataclass(frozen=True)
class StudyAnalysis:
    """All of a study's analyses."""

    analysis: Analysis
    arrays: Mapping[str, np.ndarray]

    def for_pair(self, runs: pd.DataFrame, teacher_id: str) -> PairAnalysis:
        """Return the analyses of one pair, given its rows of the frame of runs."""
        first = runs.iloc[0]
        key = f"{first['teacher']}--{first['student']}"
        by_method = {
            method: [self.analysis.runs[i] for i in own["id"] if i in self.analysis.runs]
            for method, own in runs.groupby("method", sort=False)
        }
        correlations = {
            method: array
            for method, own in runs.groupby("method", sort=False)
            for array in [self._first(self.analysis.correlations.get(i) for i in own["id"])]
            if array is not None
        }
        embedded = self.analysis.embeddings.get(key)
        points: dict[str, np.ndarray] = {}
        for panel in embedded.panels if embedded else ():
            if (array := self._array(panel.key)) is not None:
                points[panel.what] = array
        labels = self._array(embedded.labels) if embedded else None
        return PairAnalysis(
            pair=first["pair"],
            classes=self.analysis.classes,
            runs={method: measures for method, measures in by_method.items() if measures},
            teacher_correlation=self._array(self.analysis.correlations.get(teacher_id)),
            correlations=correlations,
            embeddings=points if labels is not None else {},
            embedding_labels=np.array([]) if labels is None else labels,
            examples=self._examples(key),
        )

    def _examples(self, pair: str) -> tuple[ExampleArrays, ...]:
        examples = []
        for example in self.analysis.examples:
            names = ("images", "raw", "softened", "simplified", "student")
            arrays = {name: self._array(getattr(example, name)) for name in names}
            if example.pair == pair and all(array is not None for array in arrays.values()):
                keys = example.model_dump(include={"method", "seed", "temperature"})
                examples.append(ExampleArrays(labels=tuple(example.labels), **keys, **arrays))
        return tuple(examples)

    def _array(self, key: str | None) -> np.ndarray | None:
        return None if key is None else self.arrays.get(key)

    def _first(self, keys: object) -> np.ndarray | None:
        return next((a for key in keys if (a := self._array(key)) is not None), None)


def read_study_analysis(results: Path, study: str) -> tuple[StudyAnalysis | None, str | None]:
    """Return the analyses, or ``None`` without any; and which file is damaged, or ``None``."""
    path, arrays_file = analysis_path(results, study), arrays_path(results, study)
    if not path.is_file():
        return None, None
    analysis = read_analysis(path)
    if analysis is None:
        return None, f"{path.name} cannot be read; skd analyse {study} writes it again"
    arrays = read_arrays(arrays_file)
    damaged = arrays_file.is_file() and not arrays
    problem = f"{arrays_file.name} cannot be read; skd analyse {study} writes it again"
    return StudyAnalysis(analysis, arrays), problem if damaged else None


def skipped_text(analyses: StudyAnalysis | None) -> str | None:
    """Return how many runs and teachers were not analysed completely and why, or ``None``."""
    skipped = analyses.analysis.skipped if analyses else {}
    if not skipped:
        return None
    reasons = Counter(skipped.values()).most_common()
    first = "; ".join(f"{reason} ({count})" for reason, count in reasons[:3])
    more = f"; and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    return f"Not analysed completely: {plural(len(skipped), 'run')}: {first}{more}"


def unchecked_text(checks: RecordChecks, study: str) -> str | None:
    """Return how many accuracies are not checked against test logits, or ``None`` if all are."""
    if not checks.unchecked:
        return None
    of = "all" if checks.unchecked == checks.finished else f"{checks.unchecked} of"
    subject = f"The accuracies of {of} {plural(checks.finished, 'finished run')} are"
    if checks.finished == 1:
        subject = "The accuracy of the finished run is"
    return (
        f"{subject} not checked against test logits: the logits are not in this results "
        f"folder, or skd analyse {study} has not read them."
    )


def measures_frame(analyses: StudyAnalysis, frames: Frames) -> pd.DataFrame:
    """Return the measures of the analysed runs with pair, method and seed, one row per run."""
    keys = frames.runs[["pair", "method", "seed", "id"]].drop_duplicates("id")
    rows = [
        {**key, **analyses.analysis.runs[key["id"]].model_dump(include=set(MEASURES))}
        for key in keys.to_dict("records")
        if key["id"] in analyses.analysis.runs
    ]
    return pd.DataFrame(rows, columns=[*keys.columns, *MEASURES])
