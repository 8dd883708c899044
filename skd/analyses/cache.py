"""The cache of an analysis: the results of the previous one. Does not import torch.

A result's key is a digest of its inputs: the SHA-256 of stored files in their records, settings,
and a version of the analysis. So nothing is computed twice, and the results for a recorded file
remain if the file is removed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from skd.analyses.records import (
    Analysis,
    Measures,
    RunMeasures,
    SimplifierExample,
    analysis_path,
    arrays_path,
    read_analysis,
    read_arrays,
)
from skd.common.files import write_atomically, write_json
from skd.common.frozen import canonical, digest
from skd.study.spec import DatasetSpec

# Raise the version of a kind of results when its values change.
KIND_VERSIONS = {"measures": 1, "correlation": 1, "labels": 1, "embedding": 1, "example": 1}

MeasuresType = TypeVar("MeasuresType", bound=Measures)


@dataclass
class AnalysisCache:
    """The previous results for a data set, and the arrays of the current analysis.

    Attributes:
        dataset: the data set; results for another one are not used.
        previous: the previous analysis, or ``None`` if there is none that can be read.
        previous_arrays: the previous analysis's arrays, by key.
        arrays: the current analysis's arrays, by key.
    """

    dataset: DatasetSpec
    previous: Analysis | None = None
    previous_arrays: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path, study: str, dataset: DatasetSpec) -> AnalysisCache:
        """Return the cache with the study's last analysis, as far as its files can be read."""
        previous = read_analysis(analysis_path(results, study))
        if previous is not None and previous.dataset != dataset:
            previous = None
        return cls(dataset, previous, read_arrays(arrays_path(results, study)))

    def key(self, kind: str, *sources: Any) -> str:
        """Return the key of a kind of results for some sources: plain data, mostly digests."""
        return f"{kind}/{digest([kind, KIND_VERSIONS[kind], canonical(self.dataset), *sources])}"

    def cached_array(self, key: str, compute: Callable[[], np.ndarray]) -> str:
        """Add the array of a key, computed if it is not cached; return the key."""
        if key not in self.arrays:
            cached = key in self.previous_arrays
            self.arrays[key] = self.previous_arrays[key] if cached else compute()
        return key

    def add_array(self, key: str, array: np.ndarray) -> str:
        """Add a new array; return its key."""
        self.arrays[key] = array
        return key

    def run(self, identity: str, source: str) -> RunMeasures | None:
        """Return a run's measures if they are cached for this source."""
        return _from_source(source, self.previous.runs.get(identity)) if self.previous else None

    def teacher(self, identity: str, source: str) -> Measures | None:
        """Return a teacher's measures if they are cached for this source."""
        return _from_source(source, self.previous.teachers.get(identity)) if self.previous else None

    def example(self, images: str) -> SimplifierExample | None:
        """Return the cached example with this key of images, and add its arrays."""
        for example in self.previous.examples if self.previous else ():
            keys = {
                example.images,
                example.raw,
                example.softened,
                example.simplified,
                example.student,
            }
            if example.images == images and keys <= self.previous_arrays.keys():
                self.arrays |= {key: self.previous_arrays[key] for key in keys}
                return example
        return None


def write_analysis(analysis: Analysis, arrays: dict[str, np.ndarray], results: Path) -> Path:
    """Write an analysis and its arrays, reproducibly; return the analysis's path."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **{key: arrays[key] for key in sorted(arrays)})
    write_atomically(arrays_path(results, analysis.study), packed.getvalue())
    path = analysis_path(results, analysis.study)
    write_json(path, analysis.model_dump(mode="json"))
    return path


def _from_source(source: str, measures: MeasuresType | None) -> MeasuresType | None:
    return measures if measures is not None and measures.source == source else None
