"""Training of many runs of a study in this process; one failed run does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from skd.common.errors import (
    DeviceFailedError,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    error_text,
)
from skd.common.lease import LeaseHeldError, LeaseLostError
from skd.common.terminal import printable
from skd.planning.local_lanes import choose_lanes
from skd.store.leftovers import remove_leftovers
from skd.store.store import Store, StoreEntry
from skd.store.superseded import supersede_stale_runs
from skd.study.expansion import Cell, Expansion
from skd.study.sheet_files import StudyError
from skd.training.distributed import Team
from skd.training.lanes import run_in_lanes
from skd.training.prerequisites import prepare_teachers
from skd.training.resources import Resources
from skd.training.runs import RunOptions, complete_run

CellSeed = tuple[Cell, int]


@dataclass(frozen=True)
class StudyTraining:
    """Some runs of a study, and how this process trains them.

    Attributes:
        expansion: the study.
        store: where its runs and teachers are stored.
        cells: the cells whose runs are trained.
        seeds: the seeds of these runs; empty: all of the study.
        options: how each run is trained.
        wait: whether to wait for runs that other processes train.
        stale: whether to train again what other code, or another version of the teacher, produced.
        attempt: the number of this attempt; from 2 on, failures that would repeat are final.
        since: failures after this time are final, in seconds since 1970; ``None``: no failure is.
        workers: the number of processes that decode photos, as in `Resources`.
    """

    expansion: Expansion
    store: Store
    cells: Sequence[Cell]
    seeds: Collection[int]
    options: RunOptions
    wait: bool = False
    stale: bool = False
    attempt: int = 1
    since: float | None = None
    workers: int | None = None

    @property
    def team(self) -> Team:
        """The processes that train each run together."""
        return self.options.partition.team

    def supersede_stale(self, with_teachers: bool) -> None:
        """Set the records of stale runs, and of their teachers, aside if the user chose --stale."""
        if self.stale:
            names = {cell.teacher for cell in self.cells if cell.teacher} if with_teachers else ()
            supersede_stale_runs(self.expansion, self.store, self.cells, self.seeds, names)

    def unfinished(self, runs: Iterable[CellSeed]) -> list[CellSeed]:
        """Return those of some runs that have no record."""
        return [(cell, seed) for cell, seed in runs if not self.entry(cell, seed).is_finished()]

    def entry(self, cell: Cell, seed: int) -> StoreEntry:
        """Return a run's folder in the store."""
        return self.store.run(cell.runs[seed])

    def remove_leftovers(self, runs: Iterable[CellSeed]) -> None:
        """Remove the temporary files that killed processes left of some runs."""
        for cell, seed in runs:
            remove_leftovers(self.entry(cell, seed))

    def prepare_teachers(self, runs: Sequence[CellSeed]) -> set[str]:
        """Train or import the teachers of some runs; return the names of those that failed."""
        cells = [cell for cell, _ in runs]
        options = replace(self.options, wait=self.wait)
        return prepare_teachers(self.expansion, cells, self.store, options, self.workers)

    def choose_lanes(self, lanes: int | None, runs: int, whole_study: bool) -> int:
        """Return the number of lanes for a number of unfinished runs.

        Args:
            lanes: the user's choice, or ``None``.
            runs: how many runs are unfinished.
            whole_study: whether to choose as many lanes as a GPU can use, instead of one.
        """
        if self.team.world_size > 1:
            return 1
        if lanes is None and whole_study and self.options.execution.device == "cuda":
            lanes = choose_lanes(None, self.expansion, self.cells, self.store, runs)
        return min(lanes or 1, max(1, runs))

    def train(self, runs: Sequence[CellSeed], lanes: int) -> int:
        """Train some runs; return how many of them have no record afterwards.

        Runs that other processes train come last.

        Args:
            runs: the runs in their order.
            lanes: how many of them are trained side by side.

        Raises:
            InterruptedRunError: this process was asked to stop.
            DeviceFailedError: the device failed, and this process cannot use it again.
        """
        sharing = max(self.options.sharing, lanes)
        options = replace(self.options, sharing=sharing)
        resources = Resources(self.workers, lanes)
        failures: list[CellSeed] = []
        leased: list[tuple[CellSeed, SkdError]] = []

        def train_one(run: CellSeed) -> None:
            cell, seed = run
            if self.team.all_reduce_max(int(options.should_stop())):
                raise InterruptedRunError(f"stopped before {cell.key} seed {seed}")
            if self._failed_for_good(cell, seed):
                failures.append(run)
                print(
                    f"{cell.key} seed {seed}: skipped, its failure would repeat",
                    file=sys.stderr,
                    flush=True,
                )
                return
            try:
                if not self._train_run(cell, seed, options, resources):
                    failures.append(run)
            except (LeaseHeldError, LeaseLostError) as error:
                leased.append((run, error))

        run_in_lanes(train_one, runs, lanes)
        options = replace(options, wait=True)
        for (cell, seed), error in leased:
            if not self.wait:
                failures.append((cell, seed))
                message = printable(f"NOT TRAINED {cell.key} seed {seed}: {error}")
                print(message, file=sys.stderr, flush=True)
            elif self._failed_for_good(cell, seed) or not self._train_run(
                cell, seed, options, resources
            ):
                failures.append((cell, seed))
        return len(failures)

    def _failed_for_good(self, cell: Cell, seed: int) -> bool:
        """Return whether a run has failed and is not tried again; the same in all processes."""

        def failed() -> bool:
            failure = self.entry(cell, seed).failure_or_none()
            if failure is None:
                return False
            if self.attempt > 1 and failure.repeats:
                return True
            failed_at = datetime.fromisoformat(failure.failed_at).timestamp()
            return self.since is not None and failed_at >= self.since

        return self.team.broadcast(failed)

    def _train_run(self, cell: Cell, seed: int, options: RunOptions, resources: Resources) -> bool:
        """Train one run; print its result or its error; return whether it has a record."""
        label, entry = f"{cell.key} seed {seed}", self.entry(cell, seed)
        teacher = self._teacher_entry(cell)
        try:
            record = complete_run(cell.run(seed), entry, options, label, teacher, resources)
        except (InterruptedRunError, DeviceFailedError, LeaseHeldError, LeaseLostError):
            raise
        except (SkdError, OSError) as error:
            if self.team.rank == 0:
                start = "FAILED" if isinstance(error, RunFailedError) else f"NOT TRAINED {label}:"
                reason = error if isinstance(error, SkdError) else error_text(error)
                print(printable(f"{start} {reason}"), file=sys.stderr, flush=True)
            return False
        if self.team.rank == 0:
            print(
                f"{label}: last {record.last.top1:.2f} %, best {record.best.top1:.2f} % "
                f"(epoch {record.best.epoch}), run {entry.id}",
                flush=True,
            )
        return True

    def _teacher_entry(self, cell: Cell) -> StoreEntry | None:
        """Return the folder of a cell's teacher; ``None`` for a method without a teacher.

        Raises:
            StudyError: the teacher is not trained or imported yet.
        """
        if cell.teacher is None:
            return None
        entry = self.store.teacher(self.expansion.teacher(cell.teacher).id)
        if entry.card() is None:
            raise StudyError(
                "the teacher is not ready; first: skd teacher "
                f"{self.expansion.study} {cell.teacher}"
            )
        return entry


def order_runs(cells: Iterable[Cell], seeds: Collection[int], by_seed: bool) -> list[CellSeed]:
    """Return the runs of some cells in the order of training: by cell, or by seed.

    Args:
        cells: the cells.
        seeds: the seeds of the runs; empty: all.
        by_seed: whether all cells are trained with one seed before the next seed starts.
    """
    runs = [(cell, seed) for cell in cells for seed in cell.runs if not seeds or seed in seeds]
    return sorted(runs, key=lambda run: run[1]) if by_seed else runs
