"""The folder of a run: its lease, checkpoints, execution and record, for all processes of the run.

The first process reads and writes. It sends what it reads, and its errors, to the others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor

from skd.common.errors import InterruptedRunError
from skd.common.lease import LeaseHeldError, LeaseHolder, hold_lease
from skd.store.leftovers import remove_leftovers
from skd.store.record_checks import check_identity
from skd.store.records import Record, TeacherCard
from skd.store.store import StoreEntry
from skd.study.spec import RunSpec
from skd.training import checkpoint
from skd.training.data_parallel import BatchPartition
from skd.training.distributed import ProcessesError
from skd.training.execution import Execution, load_execution, save_execution
from skd.training.loop import Training
from skd.training.result import write_failure, write_result
from skd.training.sessions import Sessions

LEASE_POLL_SECONDS = 5.0


class RunFolder:
    """The folder of a run.

    Every process of the run must call the methods, unless a method says otherwise.

    Args:
        spec: the run.
        entry: its folder in the store.
        label: name of the run in messages.
        partition: its processes and how they divide a batch.
    """

    def __init__(
        self, spec: RunSpec, entry: StoreEntry, label: str, partition: BatchPartition
    ) -> None:
        self.spec, self.entry, self.label, self.partition = spec, entry, label, partition
        self.team = partition.team
        self._check_lease: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Check that the folder belongs to the run.

        Raises:
            IdentityError: the folder's name is not the identity of the run.
            StoreError: the folder is a link to the folder of another run.
        """
        check_identity(self.spec, self.entry.id, self.label)
        self.team.broadcast(self.entry.check_link)

    def record(self) -> Record | None:
        """Return the record of the run; ``None`` if the run is not finished."""
        return self.team.broadcast(self.entry.record)

    def remove_leftovers(self) -> None:
        """Remove files that a finished run does not need."""
        self.team.broadcast(lambda: remove_leftovers(self.entry))

    def write_spec(self) -> None:
        """Write the specification of the run."""
        self.team.broadcast(lambda: self.entry.write_spec(self.spec))

    @contextlib.contextmanager
    def leased(self, wait: bool, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Hold the lease of the run within the block, in the first process.

        Args:
            wait: whether to wait for another process that trains the run.
            should_stop: called while waiting; true: stop.

        Raises:
            LeaseHeldError: another process trains the run, and ``wait`` is false.
            InterruptedRunError: stopped while waiting.
        """
        with contextlib.ExitStack() as stack:

            def take_lease(wait: bool) -> None:
                self._check_lease = stack.enter_context(
                    hold_lease(
                        self.entry.folder,
                        wait=wait,
                        on_wait=self._print_wait,
                        should_stop=should_stop,
                    )
                )

            if self.team.world_size == 1:
                take_lease(wait)
            else:
                self._take_together(partial(take_lease, False), wait, should_stop)
            yield

    def _print_wait(self, holder: LeaseHolder) -> None:
        print(f"{self.label}: waiting for {holder}, which trains this run", flush=True)

    def _take_together(
        self, take_lease: Callable[[], None], wait: bool, should_stop: Callable[[], bool]
    ) -> None:
        """Take the lease in the first process, in short attempts.

        No process waits for the others longer than a collective operation allows.
        """
        while True:
            try:
                return self.team.broadcast(take_lease)
            except LeaseHeldError as error:
                if not wait:
                    raise
                if self.team.all_reduce_max(int(should_stop())):
                    raise InterruptedRunError(
                        "stopped while another process trains the run"
                    ) from error
                time.sleep(LEASE_POLL_SECONDS)

    def saved_execution(self) -> Execution | None:
        """Return how the run has been executed so far; ``None`` if it has no checkpoint.

        Raises:
            ExecutionError: the file cannot be read, or this GPU cannot execute the run.
        """
        return self.team.broadcast(
            lambda: (
                load_execution(self.entry.folder) if checkpoint.exists(self.entry.folder) else None
            )
        )

    def save_execution(self, execution: Execution) -> None:
        """Save how the run is executed. A resumed run is executed in the same way."""
        self.team.broadcast(lambda: save_execution(self.entry.folder, execution))

    def resume(self, training: Training, device: torch.device) -> Sessions:
        """Load the newest checkpoint, if there is one, and return the sessions so far.

        Every process reads the file itself.

        Raises:
            CheckpointError: there are checkpoints, and none can be used.
            ProcessesError: the processes do not see the same checkpoint.
        """
        sessions = Sessions.with_current_only(self.spec, self.partition)

        def apply_state(state: dict[str, Any]) -> Sessions:
            training.load_state(state["training"])
            return sessions.after(state)

        owner = checkpoint.CheckpointOwner.of(self.entry, self.spec)
        resumed = checkpoint.load(self.entry.folder, device, owner, apply_state)
        position = (training.epochs_done, training.step) if resumed else None
        if position != self.team.broadcast(lambda: position):
            raise ProcessesError(
                f"{self.entry.folder}: its processes see different checkpoints; check that all "
                "nodes share one file system"
            )
        return resumed or sessions

    def save_checkpoint(self, training: Training, sessions: Sessions) -> None:
        """Save a checkpoint, and remove the note of an earlier failure.

        Raises:
            LeaseLostError: another process has taken the lease.
        """
        self.team.broadcast(self._check_lease)
        state = training.state()  # gathers from all processes
        if self.team.rank == 0:
            owner = checkpoint.CheckpointOwner.of(self.entry, self.spec)
            content = {
                "training": state,
                "sessions": sessions.descriptions,
                "code": sessions.code,
            }
            checkpoint.save(self.entry.folder, content, owner)
            with contextlib.suppress(OSError):
                self.entry.failure_path.unlink()

    def write_result(
        self,
        training: Training,
        execution: dict[str, Any],
        sessions: Sessions,
        teacher: TeacherCard | None,
        logits: Tensor,
        gpu_utilisation: float | None,
    ) -> Record:
        """Write the files of a finished run; return its record. Arguments as `result.write_result`.

        Raises:
            LeaseLostError: another process has taken the lease.
        """

        def write() -> Record:
            self._check_lease()
            return write_result(
                training, self.entry, execution, sessions.code, teacher, logits, gpu_utilisation
            )

        return self.team.broadcast(write)

    def write_failure(self, error: Exception, epochs_done: int, since: datetime) -> None:
        """Write why the run failed. Each process calls this alone: the others may have ended.

        Args:
            error: the reason.
            epochs_done: number of finished epochs.
            since: start of the attempt. The error of one process ends the others, whose errors say
                less; therefore the first note of the attempt is kept.

        Raises:
            LeaseLostError: another process has taken the lease.
        """
        self._check_lease()
        note = self.entry.failure_or_none() if self.team.world_size > 1 else None
        if note is None or datetime.fromisoformat(note.failed_at) < since:
            write_failure(self.entry, error, epochs_done)
