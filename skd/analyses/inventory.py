"""What of a study is at hand to be analysed, and what turned out to be unusable.

Imports no torch: the data set is loaded only once it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from skd.analyses.stored_networks import StoredNetwork, UnusableError, stored_run, stored_teacher
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion

if TYPE_CHECKING:
    from skd.data.images import Images

T = TypeVar("T")
# Shows how far it is; is given what is gone through, and its name.
ProgressTracker = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class FirstResult(Generic[T]):
    """What was found, in which run of which seed."""

    seed: int
    run: StoredNetwork
    found: T


class Inventory:
    """A study's finished runs and its teachers at hand.

    Attributes:
        teachers: by name.
        teacher_logits: test logits (M, C) of those that have usable ones, by name.
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
            DataError: it is not at hand.
        """
        from skd.data import load_dataset

        return load_dataset(self.expansion.dataset)

    @property
    def labels(self) -> np.ndarray:
        """The test images' classes, (M,)."""
        return self.images.test_labels.numpy()

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """Return some test images as an evaluation sees them, (P, 3, S, S) uint8."""
        import torch

        from skd.data import load_evaluation_pixels

        return load_evaluation_pixels(self.images, torch.from_numpy(places)).numpy()

    def logits(self, stored: StoredNetwork) -> np.ndarray:
        """Return test logits of the study's images and classes, (M, C) float64.

        Raises:
            UnusableError: as `Stored.logits`.
        """
        facts = self.expansion.images
        return stored.logits(facts.test_images, facts.classes)

    def finished(self, cell: Cell) -> Iterator[tuple[int, StoredNetwork]]:
        """Yield a cell's finished runs with their seeds, which rise."""
        for seed, identity in sorted(cell.runs.items()):
            if identity not in self._runs:
                self._runs[identity] = None
                try:
                    self._runs[identity] = stored_run(self.store.run(identity))
                except UnusableError as error:
                    self.skip(identity, error)
            if (run := self._runs[identity]) is not None:
                yield seed, run

    def altered(self, track: ProgressTracker) -> dict[str, tuple[str, ...]]:
        """Return the files of runs and teachers that are not those recorded, by identity."""
        runs = {run.id: run for cell in self.expansion.cells for _, run in self.finished(cell)}
        found: dict[str, tuple[str, ...]] = {}
        for stored in track([*self.teachers.values(), *runs.values()], "stored files"):
            if names := stored.altered():
                found[stored.id] = (*found.get(stored.id, ()), *names)
        return found

    def first(
        self, cell: Cell, find: Callable[[int, StoredNetwork], T | None]
    ) -> FirstResult[T] | None:
        """Return what the first of a cell's finished runs tells that tells anything.

        Args:
            cell: whose runs are tried, by rising seed.
            find: is given seed and run; returns what is wanted, or none where the run has no such
                thing. May raise `UnusableError`.
        """
        for seed, run in self.finished(cell):
            try:
                found = find(seed, run)
            except UnusableError as error:
                self.skip(run.id, error)
                continue
            if found is not None:
                return FirstResult(seed, run, found)
        return None

    @property
    def skipped(self) -> dict[str, str]:
        """Why something of a run or teacher is missing, by identity."""
        return {identity: "; ".join(reasons) for identity, reasons in self._reasons.items()}

    def skip(self, identity: str, reason: UnusableError | str) -> None:
        """Note why something of a run or teacher is missing, once."""
        reasons = self._reasons.setdefault(identity, [])
        if str(reason) not in reasons:
            reasons.append(str(reason))

    def skip_teacher(self, name: str, reason: UnusableError) -> None:
        """Note it of a teacher, whose identity may be a run's too."""
        self.skip(self.expansion.teacher(name).id, f"teacher {name}: {reason}")
