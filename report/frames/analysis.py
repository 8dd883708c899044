"""What `skd analyse` left of a study, arranged by pair: ``analysis.json`` and ``analysis.npz``."""

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
from skd.study.expansion import Expansion

MOST_LINES = 10  # of runs and teachers that are named
MEASURES = ("nll", "ece", "agreement", "teacher_kl")


@dataclass(frozen=True)
class ExampleArrays:
    """What a simplifier makes of some images of one batch: probabilities, (E, C) each."""

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
        runs: measures of the finished runs, by method.
        correlations: (C, C) by method, of one seed.
        embeddings: (P, 2) by network, the teacher first.
        embedding_labels: (P,).
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

    found: Analysis
    arrays: Mapping[str, np.ndarray]

    def for_pair(self, runs: pd.DataFrame, teacher_id: str) -> PairAnalysis:
        """Return one pair's part, given its rows of the frame of runs."""
        first = runs.iloc[0]
        key = f"{first['teacher']}--{first['student']}"
        by_method = {
            method: [self.found.runs[i] for i in own["id"] if i in self.found.runs]
            for method, own in runs.groupby("method", sort=False)
        }
        correlations = {
            method: array
            for method, own in runs.groupby("method", sort=False)
            for array in [self._first(self.found.correlations.get(i) for i in own["id"])]
            if array is not None
        }
        embedded = self.found.embeddings.get(key)
        points: dict[str, np.ndarray] = {}
        for panel in embedded.panels if embedded else ():
            if (array := self._array(panel.key)) is not None:
                points[panel.what] = array
        labels = self._array(embedded.labels) if embedded else None
        return PairAnalysis(
            pair=first["pair"],
            classes=self.found.classes,
            runs={method: found for method, found in by_method.items() if found},
            teacher_correlation=self._array(self.found.correlations.get(teacher_id)),
            correlations=correlations,
            embeddings=points if labels is not None else {},
            embedding_labels=np.array([]) if labels is None else labels,
            examples=self._examples(key),
        )

    def _examples(self, pair: str) -> tuple[ExampleArrays, ...]:
        found = []
        for example in self.found.examples:
            names = ("images", "raw", "softened", "simplified", "student")
            arrays = {name: self._array(getattr(example, name)) for name in names}
            if example.pair == pair and all(array is not None for array in arrays.values()):
                about = example.model_dump(include={"method", "seed", "temperature"})
                found.append(ExampleArrays(labels=tuple(example.labels), **about, **arrays))
        return tuple(found)

    def _array(self, key: str | None) -> np.ndarray | None:
        return None if key is None else self.arrays.get(key)

    def _first(self, keys: object) -> np.ndarray | None:
        return next((a for key in keys if (a := self._array(key)) is not None), None)


def read_study_analysis(results: Path, study: str) -> tuple[StudyAnalysis | None, str | None]:
    """Return the analyses, or none; and where some are damaged, which."""
    path, arrays_file = analysis_path(results, study), arrays_path(results, study)
    if not path.is_file():
        return None, None
    found = read_analysis(path)
    if found is None:
        return None, f"{path.name} cannot be read; skd analyse {study} makes it anew"
    arrays = read_arrays(arrays_file)
    damaged = arrays_file.is_file() and not arrays
    problem = f"{arrays_file.name} cannot be read; skd analyse {study} makes it anew"
    return StudyAnalysis(found, arrays), problem if damaged else None


def skipped_text(analyses: StudyAnalysis | None) -> str | None:
    """Return how many runs and teachers were not analysed in full, and why, or none."""
    skipped = analyses.found.skipped if analyses else {}
    if not skipped:
        return None
    reasons = Counter(skipped.values()).most_common()
    said = "; ".join(f"{reason} ({count})" for reason, count in reasons[:3])
    more = f"; and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    return f"Not analysed in full: {plural(len(skipped), 'run')}: {said}{more}"


def contradicted_lines(checks: RecordChecks, expansion: Expansion) -> list[str]:
    """Return a line for each run and teacher that its stored files contradict; of many, the first.

    The files are as the last `skd analyse` found them, the records and cards as they are now.
    """
    lines = [f"Contradicted by stored files: {line}." for line in checks.lines(expansion)]
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"Contradicted likewise: {more} more."]


def unchecked_text(checks: RecordChecks, study: str) -> str | None:
    """Return how many accuracies have not been checked against test logits, or none if all have."""
    if not checks.unchecked:
        return None
    return (
        f"Accuracies of {checks.unchecked} of {plural(checks.finished, 'finished run')} have not "
        f"been checked against their test logits: these are not kept here, or skd analyse {study} "
        "has not seen them."
    )


def measures_frame(analyses: StudyAnalysis, frames: Frames) -> pd.DataFrame:
    """Return the analysed runs' measures beside pair, method and seed, a row a run."""
    keys = frames.runs[["pair", "method", "seed", "id"]].drop_duplicates("id")
    rows = [
        {**key, **analyses.found.runs[key["id"]].model_dump(include=set(MEASURES))}
        for key in keys.to_dict("records")
        if key["id"] in analyses.found.runs
    ]
    return pd.DataFrame(rows, columns=[*keys.columns, *MEASURES])
