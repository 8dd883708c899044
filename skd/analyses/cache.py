"""What an earlier analysis found, by what it was found on. Imports no torch.

A finding's key is the digest of all it comes from: the SHA-256 of stored files as their records
give them, settings, and a version of the analysis itself. So nothing is made twice, and what was
once found of a recorded file stays, whatever becomes of the file.
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

# Raise a kind's number when its values change.
KIND_VERSIONS = {"measures": 1, "correlation": 1, "labels": 1, "embedding": 1, "example": 1}

MeasuresType = TypeVar("Found", bound=Measures)


@dataclass
class AnalysisCache:
    """Earlier findings about one data set, and the arrays that this analysis refers to.

    Attributes:
        dataset: the data set; another one shares no finding.
        earlier: the analysis before, if there is one that can be read.
        old: its arrays by key.
        arrays: this analysis's.
    """

    dataset: DatasetSpec
    previous: Analysis | None = None
    old: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path, study: str, dataset: DatasetSpec) -> AnalysisCache:
        """Return what is left of the study's last analysis; nothing where its files are damaged."""
        earlier = read_analysis(analysis_path(results, study))
        if earlier is not None and earlier.dataset != dataset:
            earlier = None
        return cls(dataset, earlier, read_arrays(arrays_path(results, study)))

    def key(self, kind: str, *sources: Any) -> str:
        """Return the key of a finding of some kind about plain data, digests above all."""
        return f"{kind}/{digest([kind, KIND_VERSIONS[kind], canonical(self.dataset), *sources])}"

    def array(self, key: str, make: Callable[[], np.ndarray]) -> str:
        """Have an array under its key, made now if it is not there; return the key."""
        if key not in self.arrays:
            self.arrays[key] = self.old[key] if key in self.old else make()
        return key

    def put(self, key: str, array: np.ndarray) -> str:
        """Have an array that was made now under its key; return the key."""
        self.arrays[key] = array
        return key

    def run(self, identity: str, source: str) -> RunMeasures | None:
        """Return a run's measures if they were taken on this source."""
        return _of(source, self.previous.runs.get(identity)) if self.previous else None

    def teacher(self, identity: str, source: str) -> Measures | None:
        """Return a teacher's measures if they were taken on this source."""
        return _of(source, self.previous.teachers.get(identity)) if self.previous else None

    def example(self, images: str) -> SimplifierExample | None:
        """Return the example whose images have this key, and its arrays with it."""
        for found in self.previous.examples if self.previous else ():
            keys = {found.images, found.raw, found.softened, found.simplified, found.student}
            if found.images == images and keys <= self.old.keys():
                self.arrays |= {key: self.old[key] for key in keys}
                return found
        return None


def write_analysis(analysis: Analysis, arrays: dict[str, np.ndarray], results: Path) -> Path:
    """Write an analysis and its arrays, always the same bytes; return where the former is."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **{key: arrays[key] for key in sorted(arrays)})
    write_atomically(arrays_path(results, analysis.study), packed.getvalue())
    path = analysis_path(results, analysis.study)
    write_json(path, analysis.model_dump(mode="json"))
    return path


def _of(source: str, found: MeasuresType | None) -> MeasuresType | None:
    return found if found is not None and found.source == source else None
