"""Batches: the cells that one job trains. Imports no torch.

By default each cell is one batch; small cells can share one. A batch does not change as long as its
cells and the configuration stay the same, whatever is measured later. A trained batch never
changes, because Snakemake knows its file by the batch's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

from pydantic import NonNegativeFloat, PositiveInt

from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel
from skd.study.expansion import Cell, Expansion, cells_digest


class JobShape(FrozenModel):
    """The size of a job. By default each cell is one job."""

    job_minutes: NonNegativeFloat = 0.0  # cells of a pair share a job up to this duration
    cells_per_job: PositiveInt | None = None  # exactly this number of cells, whatever they take


class CellBatch(FrozenModel):
    """Some cells of one pair in the study's order, with the digest of their runs."""

    pair: str
    methods: tuple[str, ...]
    digest: str

    @property
    def name(self) -> str:
        """The batch's name within its pair."""
        first, others = self.methods[0], len(self.methods) - 1
        return f"{first}-and-{others}-more" if others else first

    @property
    def path(self) -> str:
        """The path of the batch's file within ``results/<study>/cells``, without its suffix."""
        return f"{self.pair}/{self.name}-{self.digest}"

    @classmethod
    def of(cls, cells: list[Cell]) -> Self:
        """Return the batch of some cells of a pair."""
        methods = tuple(cell.method for cell in cells)
        return cls(pair=cells[0].pair, methods=methods, digest=cells_digest(cells))


class StudyBatches(FrozenModel):
    """All batches of a study."""

    shape: JobShape
    batches: tuple[CellBatch, ...]

    @cached_property
    def _by_path(self) -> dict[str, CellBatch]:
        return {batch.path: batch for batch in self.batches}

    def find(self, pair: str, name: str, digest: str) -> CellBatch | None:
        """Return the batch with these parts of its file name; ``None`` if there is none."""
        return self._by_path.get(f"{pair}/{name}-{digest}")


def batches_path(results: Path, study: str) -> Path:
    """Return the file of a study's batches."""
    return results / study / "batches.json"


def read_batches(expansion: Expansion, results: Path) -> StudyBatches:
    """Return the stored batches of a study; if there are none, one batch for each cell."""
    stored = _read(batches_path(results, expansion.study))
    return make_batches(expansion, stored.shape if stored else JobShape(), dict, stored)


def plan_batches(
    expansion: Expansion,
    results: Path,
    shape: JobShape,
    seconds: Callable[[], Mapping[str, float]],
) -> StudyBatches:
    """Return a study's batches, with the stored ones that are still valid; write nothing.

    Args:
        expansion: the study.
        results: the results folder.
        shape: the size of a job.
        seconds: returns the seconds of each cell by its key; called only if cells share jobs.
    """
    path = batches_path(results, expansion.study)
    stored = _read(path)

    def is_done(batch: CellBatch) -> bool:
        return (path.parent / "cells" / f"{batch.path}.json").exists()

    return make_batches(expansion, shape, seconds, stored, is_done)


def save_batches(batches: StudyBatches, results: Path, study: str) -> None:
    """Write a study's batches for its jobs to read. Only the driver may call this."""
    write_json(batches_path(results, study), batches.model_dump(mode="json"))


def make_batches(
    expansion: Expansion,
    shape: JobShape,
    seconds: Callable[[], Mapping[str, float]],
    stored: StudyBatches | None = None,
    is_done: Callable[[CellBatch], bool] = lambda _: False,
) -> StudyBatches:
    """Divide a study's cells into batches.

    Args:
        expansion: the study.
        shape: the size of a job.
        seconds: returns the seconds of each cell by its key; called only if cells share jobs.
        stored: earlier batches; one stays if its runs are the same and it is done or was made with
            the same shape.
        is_done: returns whether a batch is trained.
    """
    cells = {cell.key: cell for cell in expansion.cells}
    batches = []
    for batch in stored.batches if stored else ():
        members = [cells.get(f"{batch.pair}/{method}") for method in batch.methods]
        unchanged = None not in members and cells_digest(members) == batch.digest
        if unchanged and (stored.shape == shape or is_done(batch)):
            batches.append(batch)
            for cell in members:
                del cells[cell.key]
    cell_seconds = seconds() if shape.job_minutes and not shape.cells_per_job and cells else {}
    by_pair = groupby(sorted(cells.values(), key=lambda cell: cell.pair), lambda cell: cell.pair)
    for _, group in by_pair:
        batches += map(CellBatch.of, _split([*group], shape, cell_seconds))
    order = {cell.key: number for number, cell in enumerate(expansion.cells)}
    batches.sort(key=lambda batch: order[f"{batch.pair}/{batch.methods[0]}"])
    return StudyBatches(shape=shape, batches=tuple(batches))


def _split(
    cells: list[Cell], shape: JobShape, cell_seconds: Mapping[str, float]
) -> list[list[Cell]]:
    """Divide a pair's cells, in their order, into jobs of the allowed size."""
    parts: list[list[Cell]] = []
    total = 0.0
    for cell in cells:
        seconds = cell_seconds.get(cell.key, float("inf"))
        if shape.cells_per_job:
            fits = bool(parts) and len(parts[-1]) < shape.cells_per_job
        else:
            fits = bool(parts) and total + seconds <= 60 * shape.job_minutes
        if fits:
            parts[-1].append(cell)
            total += seconds
        else:
            parts.append([cell])
            total = seconds
    return parts


def _read(path: Path) -> StudyBatches | None:
    try:
        return StudyBatches.model_validate(read_json(path))
    except (OSError, ValueError):
        return None
