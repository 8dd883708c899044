"""The runs, teachers and images of a study for its analysis, and those that cannot be used.

Does not import torch: the data set is loaded when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from skd.analyses.errors import UnusableError
from skd.analyses.stored_networks import StoredNetwork, stored_run, stored_teacher
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion

if TYPE_CHECKING:
    from skd.data.images import Images

T = TypeVar("T")
# Shows progress: takes the items of a loop and the loop's name, and returns the items.
ProgressTracker = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class FirstResult(Generic[T]):
    """A result, and the run and seed that it is of."""

    seed: int
    run: StoredNetwork
    value: T


class Inventory:
    """A study's finished runs, and its teachers as far as they are stored.

    Attributes:
        teachers: the stored teachers, by name.
        teacher_logits: the teachers' test logits (M, C) that can be used, by name.
    """

    def __init__(self, expansion: Expansion, store: Store) -> None:
        self.expansion, self.store = expansion, store
        self._reasons: dict[str, list[str]] = {}
        self._runs: dict[str, StoredNetwork | None] = {}
        self.teachers: dict[str, StoredNetwork] = {}
        self.teacher_logits: dict[str, np.ndarray] = {}
        for node in expansion.teachers:
            try:
                teacher = stored_teacher(store.teacher(node.id))
                if teacher is not None:
                    self.teachers[node.name] = teacher
                    self.teacher_logits[node.name] = self.logits(teacher)
            except UnusableError as error:
                self.skip_teacher(node.name, error)

    @cached_property
    def images(self) -> Images:
        """The data set.

        Raises:
            DataError: it is missing.
        """
        from skd.data import load_dataset

        return load_dataset(self.expansion.dataset)

    @property
    def labels(self) -> np.ndarray:
        """The test images' classes, (M,)."""
        return self.images.test_labels.numpy()

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return some test images as an evaluation sees them, (P, 3, S, S) uint8."""
        import torch

        from skd.data import load_evaluation_pixels

        return load_evaluation_pixels(self.images, torch.from_numpy(indices)).numpy()

    def logits(self, stored: StoredNetwork) -> np.ndarray:
        """Return test logits of the study's images and classes, (M, C) float64.

        Raises:
            UnusableError: as `StoredNetwork.logits`.
        """
        facts = self.expansion.images
        return stored.logits(facts.test_images, facts.classes)

    def finished_runs(self, cell: Cell) -> Iterator[tuple[int, StoredNetwork]]:
        """Yield the seeds and runs of a cell's finished runs, by increasing seed."""
        for seed, identity in sorted(cell.runs.items()):
            if identity not in self._runs:
                self._runs[identity] = None
                try:
                    self._runs[identity] = stored_run(self.store.run(identity))
                except UnusableError as error:
                    self.skip(identity, error)
            if (run := self._runs[identity]) is not None:
                yield seed, run

    def altered_files(self, track: ProgressTracker) -> dict[str, tuple[str, ...]]:
        """Return the files of runs and teachers that are not those recorded, by identity."""
        runs = {run.id: run for cell in self.expansion.cells for _, run in self.finished_runs(cell)}
        altered: dict[str, tuple[str, ...]] = {}
        for stored in track([*self.teachers.values(), *runs.values()], "stored files"):
            if names := stored.altered_files():
                altered[stored.id] = (*altered.get(stored.id, ()), *names)
        return altered

    def first_result(
        self, cell: Cell, compute: Callable[[int, StoredNetwork], T | None]
    ) -> FirstResult[T] | None:
        """Return the result of the first finished run of a cell that has one, or ``None``.

        Args:
            cell: the cell, whose runs are tried by increasing seed.
            compute: takes a seed and a run; returns the result, or ``None`` if the run has none.
                May raise `UnusableError`.
        """
        for seed, run in self.finished_runs(cell):
            try:
                value = compute(seed, run)
            except UnusableError as error:
                self.skip(run.id, error)
                continue
            if value is not None:
                return FirstResult(seed, run, value)
        return None

    @property
    def skipped(self) -> dict[str, str]:
        """The reasons why results of a run or teacher are missing, by identity."""
        return {identity: "; ".join(reasons) for identity, reasons in self._reasons.items()}

    def skip(self, identity: str, reason: UnusableError | str) -> None:
        """Add a reason why a result of a run or teacher is missing, once."""
        reasons = self._reasons.setdefault(identity, [])
        if str(reason) not in reasons:
            reasons.append(str(reason))

    def skip_teacher(self, name: str, reason: UnusableError) -> None:
        """Add a reason for a teacher, with its name: a run may have the same identity."""
        self.skip(self.expansion.teacher(name).id, f"teacher {name}: {reason}")
