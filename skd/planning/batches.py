"""Batches: the cells that one job trains. Imports no torch.

A cell is a batch of its own unless the study's cells are small. A batch that has been made stays as
it is while its cells and the configuration do, whatever is measured later, and for good once it is
trained: its name is that of a file Snakemake knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Self

from pydantic import NonNegativeFloat, PositiveInt

from skd.common.errors import SkdError
from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel
from skd.common.names import RESULTS_NAME
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Cell, Expansion, cells_digest


class ShapeError(SkdError, ValueError):
    """The configuration's shape of jobs is wrong. Says what is allowed."""


class JobShape(FrozenModel):
    """How large a job may be. The defaults are a job a cell."""

    job_minutes: NonNegativeFloat = 0.0  # cells of a pair are put together up to so long a job
    cells_per_job: PositiveInt | None = None  # exactly so many, whatever they take


class CellBatch(FrozenModel):
    """Cells of one pair, in the study's order, and the digest of their runs."""

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
        """The place of its file within ``results/<study>/cells``, without its ending."""
        return f"{self.pair}/{self.name}-{self.digest}"

    @classmethod
    def of(cls, cells: list[Cell]) -> Self:
        """Make a batch of some cells of a pair."""
        methods = tuple(cell.method for cell in cells)
        return cls(pair=cells[0].pair, methods=methods, digest=cells_digest(cells))


class StudyBatches(FrozenModel):
    """A study's batches."""

    shape: JobShape
    batches: tuple[CellBatch, ...]

    @cached_property
    def _by_path(self) -> dict[str, CellBatch]:
        return {batch.path: batch for batch in self.batches}

    def find(self, pair: str, name: str, digest: str) -> CellBatch | None:
        """Return a batch by what names its file."""
        return self._by_path.get(f"{pair}/{name}-{digest}")


def batches_path(results: Path, study: str) -> Path:
    """Return where a study's batches are kept."""
    return results / study / "batches.json"


def read_batches(expansion: Expansion, results: Path) -> StudyBatches:
    """Return a study's batches as they were last made; a batch a cell where there are none."""
    kept = _read(batches_path(results, expansion.study))
    return make_batches(expansion, kept.shape if kept else JobShape(), dict, kept)


def entries_by_rule_output(
    expansion: Expansion, store: Store, results: Path
) -> dict[str, dict[str, StoreEntry]]:
    """Return what each job trains: entries by their label, by the output that Snakemake knows."""
    folder = f"{RESULTS_NAME}/{expansion.study}"  # as Snakemake's log has it
    outputs = {
        f"{folder}/teachers/{node.name}-{node.id}.json": {
            f"teacher {node.name}": store.teacher(node.id)
        }
        for node in expansion.teachers
    }
    for batch in read_batches(expansion, results).batches:
        outputs[f"{folder}/cells/{batch.path}.json"] = {
            f"{batch.pair}/{method} seed {seed}": store.run(run)
            for method in batch.methods
            for seed, run in expansion.cell(batch.pair, method).runs.items()
        }
    return outputs


def plan_batches(
    expansion: Expansion,
    results: Path,
    shape: JobShape,
    seconds: Callable[[], Mapping[str, float]],
) -> StudyBatches:
    """Return a study's batches, kept from before as far as they still are; writes nothing.

    Args:
        expansion: the study.
        results: where its folder is.
        shape: how large jobs may be.
        seconds: returns what each cell takes, by its key; asked only where cells are put together.
    """
    path = batches_path(results, expansion.study)
    kept = _read(path)

    def done(batch: CellBatch) -> bool:
        return (path.parent / "cells" / f"{batch.path}.json").exists()

    return make_batches(expansion, shape, seconds, kept, done)


def save_batches(batches: StudyBatches, results: Path, study: str) -> None:
    """Write a study's batches, for its jobs to read: the driver's to do, and nobody else's."""
    write_json(batches_path(results, study), batches.model_dump(mode="json"))


def make_batches(
    expansion: Expansion,
    shape: JobShape,
    seconds: Callable[[], Mapping[str, float]],
    kept: StudyBatches | None = None,
    done: Callable[[CellBatch], bool] = lambda _: False,
) -> StudyBatches:
    """Put a study's cells into batches.

    Those of ``kept`` stay if their runs are the same and the shape is, or they are done.
    """
    cells = {cell.key: cell for cell in expansion.cells}
    batches = []
    for batch in kept.batches if kept else ():
        own = [cells.get(f"{batch.pair}/{method}") for method in batch.methods]
        unchanged = None not in own and cells_digest(own) == batch.digest
        if unchanged and (kept.shape == shape or done(batch)):
            batches.append(batch)
            for cell in own:
                del cells[cell.key]
    takes = seconds() if shape.job_minutes and not shape.cells_per_job and cells else {}
    by_pair = groupby(sorted(cells.values(), key=lambda cell: cell.pair), lambda cell: cell.pair)
    for _, group in by_pair:
        batches += map(CellBatch.of, _split([*group], shape, takes))
    order = {cell.key: number for number, cell in enumerate(expansion.cells)}
    batches.sort(key=lambda batch: order[f"{batch.pair}/{batch.methods[0]}"])
    return StudyBatches(shape=shape, batches=tuple(batches))


def _split(cells: list[Cell], shape: JobShape, takes: Mapping[str, float]) -> list[list[Cell]]:
    """Cut a pair's cells, in their order, into jobs that are small enough."""
    parts: list[list[Cell]] = []
    total = 0.0
    for cell in cells:
        need = takes.get(cell.key, float("inf"))
        if shape.cells_per_job:
            fits = bool(parts) and len(parts[-1]) < shape.cells_per_job
        else:
            fits = bool(parts) and total + need <= 60 * shape.job_minutes
        if fits:
            parts[-1].append(cell)
            total += need
        else:
            parts.append([cell])
            total = need
    return parts


def _read(path: Path) -> StudyBatches | None:
    try:
        return StudyBatches.model_validate(read_json(path))
    except (OSError, ValueError):
        return None
