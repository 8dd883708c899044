"""One run from wherever it stands to its record: lease, resume, checkpoints, failure note."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from skd.common.choices import TeacherOutputs
from skd.common.errors import DeviceFailedError, InterruptedRunError, RunFailedError, error_text
from skd.common.lease import LeaseHeldError, LeaseHolder, LeaseLostError, hold_lease
from skd.kernels.tables import KernelsError
from skd.store.leftovers import remove_leftovers
from skd.store.record_checks import check_identity
from skd.store.records import Record, TeacherCard
from skd.store.stale import files_text
from skd.store.store import StoreEntry
from skd.study.spec import RunSpec
from skd.training import checkpoint
from skd.training.checkpoint import CheckpointError
from skd.training.compiling import CompilerError
from skd.training.cuda_graph import own_stream
from skd.training.current_code import current_run_code, join_session_digests
from skd.training.data_parallel import BatchPartition, DivisionError
from skd.training.distributed import ProcessesError, lost_process_error
from skd.training.execution import (
    Execution,
    ExecutionError,
    environment,
    is_device_error,
    load_execution,
    reset_peak_memory,
    save_execution,
)
from skd.training.fast_paths import FastPaths, decide_fast_paths, without_compiler
from skd.training.loop import NonFiniteLossError, Training
from skd.training.progress import RunProgress, is_loss_due, run_progress
from skd.training.progress_file import ProgressFile
from skd.training.resources import DeviceDataset, Resources, choose_teacher_outputs
from skd.training.result import write_failure, write_result

SAVING_SHARE = 20  # training takes at least so many times as long as saving
LEASE_POLL_SECONDS = 5.0
SAVE, STOP = 1, 2  # what a process may wish after a step; STOP saves too


@dataclass(frozen=True)
class RunOptions:
    """How to go about a run; nothing here changes its numbers but the execution's rounding.

    Attributes:
        execution: for a run that is begun now; one that goes on keeps its own.
        teacher: where its teacher's outputs come from, likewise; none: stored views, where there
            are some.
        paths: which of its passes are compiled, and which kernels they use, likewise.
        checkpoint_seconds: at most so long between checkpoints; 0: every epoch.
        sharing: trainings that share the device, of which this is one.
        wait: wait for another process that trains the same run, instead of refusing.
        stopping: asked after each step; true: save and leave.
        division: of the batches, among the processes of this run.
    """

    execution: Execution
    teacher: TeacherOutputs | None = None
    paths: FastPaths = field(default_factory=FastPaths)
    checkpoint_seconds: float = 60.0
    sharing: int = 1
    wait: bool = False
    stopping: Callable[[], bool] = lambda: False
    division: BatchPartition = field(default_factory=BatchPartition)


def complete_run(
    spec: RunSpec,
    entry: StoreEntry,
    options: RunOptions,
    label: str,
    teacher_entry: StoreEntry | None = None,
    resources: Resources | None = None,
) -> Record:
    """Return a run's record, training what is left of it.

    Args:
        spec: the run.
        entry: its folder in the store.
        options: how to go about it.
        label: how messages name it.
        teacher_entry: its teacher's folder; none for a run without one.
        resources: what the process's runs share; none: nothing.

    Raises:
        RunFailedError: it failed, now; a failure note has been left.
        DeviceFailedError: its device did: no run of this process can go on.
        InterruptedRunError: it was asked to stop, and has saved.
        LeaseHeldError: another process trains it, and it shall not be waited for.
        ExecutionError: it cannot be executed here.
        CheckpointError: it cannot go on from its checkpoints.
        IdentityError: the folder is not the run's.
        StoreError: its folder is a link to another run's, or its record cannot be read or is
            inconsistent.
    """
    team = options.division.team
    check_identity(spec, entry.id, label)
    team.broadcast(entry.check_link)
    if (record := team.broadcast(entry.record)) is not None:
        team.broadcast(lambda: remove_leftovers(entry))
        return record

    def execution_asked_for() -> Execution:
        device = torch.device(options.execution.device)
        how = (
            choose_teacher_outputs(options.teacher, spec, teacher_entry, device)
            if teacher_entry
            else None
        )
        return options.execution.model_copy(update={"teacher": how})

    with _leased(entry, options, label) as still_mine:
        if (record := team.broadcast(entry.record)) is not None:  # finished while we waited
            return record
        team.broadcast(lambda: entry.write_spec(spec))
        # Without a checkpoint there is nothing to go on with in the same way.
        kept = team.broadcast(
            lambda: load_execution(entry.folder) if checkpoint.exists(entry.folder) else None
        )
        execution = kept or team.broadcast(execution_asked_for)
        if team.device not in (None, execution.device):
            raise ExecutionError(
                f"{label} was begun on {execution.device}: start its processes with "
                f"--device {execution.device}, or remove its folder to begin it anew"
            )
        device = execution.apply()
        with own_stream(device):
            run = _Run(spec, entry, options, label, teacher_entry, resources or Resources())
            return run.complete(execution, kept is None, device, still_mine)


class _Run:
    """A run in this process, its lease held."""

    def __init__(
        self,
        spec: RunSpec,
        entry: StoreEntry,
        options: RunOptions,
        label: str,
        teacher: StoreEntry | None,
        materials: Resources,
    ) -> None:
        self.spec, self.entry, self.options, self.label = spec, entry, options, label
        self.teacher, self.materials = teacher, materials
        self.team = options.division.team
        self.training: Training | None = None
        self.card: TeacherCard | None = None

    def complete(
        self,
        execution: Execution,
        new: bool,
        device: torch.device,
        check_lease: Callable[[], None],
    ) -> Record:
        """Return the record, training what is left; as `complete_run`.

        Args:
            execution: of the run; where it is begun now, its passes are yet to be decided.
            new: whether it is begun now.
            device: of the execution.
            check_lease: raises where the lease has been lost.
        """
        begun = datetime.now(UTC)
        if self.options.sharing == 1:
            reset_peak_memory(device)
        try:
            self._build(execution, new, device)
            return self._train(check_lease)
        except (InterruptedRunError, LeaseLostError, ExecutionError, CheckpointError):
            raise
        except Exception as raised:
            error = lost_process_error(raised) or raised
            check_lease()
            # One process's error ends the others: theirs say no more than that.
            known = self.entry.failure_or_none() if self.team.count > 1 else None
            if known is None or datetime.fromisoformat(known.failed_at) < begun:
                done = self.training.epochs_done if self.training else 0
                write_failure(self.entry, error, done)
            of_all = self.team.count == 1 or isinstance(error, NonFiniteLossError | DivisionError)
            failed = RunFailedError if of_all and not is_device_error(error) else DeviceFailedError
            raise failed(f"{self.label}: {error_text(error)}") from raised
        finally:
            if self.training is not None:
                self.training.views.close()

    def _build(self, execution: Execution, new: bool, device: torch.device) -> None:
        """Set the training up, and fix its execution where it is begun now."""
        material = self.materials.data(self.spec.dataset, device)
        try:
            if new:
                execution = self.team.broadcast(lambda: self._decided(execution, material))
            self.training = self._training(execution, material)
        except KernelsError as error:
            raise ExecutionError(f"{self.label}: {error}") from error
        self.sessions, self.code = _resume(self.training, self.entry, device)
        if self.training.epochs_done == self.spec.recipe.epochs:  # only its record is missing
            return
        try:
            self.training.prepare()
        except CompilerError as error:
            if not new:
                raise ExecutionError(
                    f"{self.label} was begun with compiled passes or kernels, and they cannot be "
                    f"compiled here ({error}); mend that, or remove {self.entry.folder} to begin "
                    "it anew"
                ) from error
            self.materials.not_compiled[self.spec.network] = str(error)
            execution = without_compiler(execution, str(error))
            self.training = self._training(execution, material)
            self.sessions, self.code = _resume(self.training, self.entry, device)
        if new:
            self.team.broadcast(lambda: save_execution(self.entry.folder, execution))

    def _decided(self, execution: Execution, material: DeviceDataset) -> Execution:
        """Return the execution with its passes and kernels decided, by all steps of the run."""
        recipe, division = self.spec.recipe, self.options.division
        decided = decide_fast_paths(
            execution,
            self.options.paths,
            steps=recipe.epochs * recipe.steps_per_epoch(len(material.images.train_labels)),
            whole_batches=division.count == 1
            and recipe.bn_batch is None
            and material.tests.on_device,
        )
        reason = self.materials.not_compiled.get(self.spec.network)
        if reason and (decided.compiled or decided.kernels):
            return without_compiler(decided, reason)
        return decided

    def _training(self, execution: Execution, material: DeviceDataset) -> Training:
        teacher = None
        if self.teacher is not None:
            found = self.materials.teacher(self.spec, self.teacher, execution, material.device)
            teacher, self.card = found.outputs, found.card
        return Training(self.spec, material, teacher, execution, self.options.division)

    def _train(self, still_mine: Callable[[], None]) -> Record:
        """Train what is left, and leave the record."""
        training, epochs = self.training, self.spec.recipe.epochs
        on_gpu = training.device.type == "cuda"
        telling = ProgressFile(self.entry, epochs, training.steps_per_epoch, on_gpu)
        alone, shown = self.options.sharing == 1, self.team.rank == 0
        steps = epochs * training.steps_per_epoch
        with run_progress(self.label, epochs, steps, alone, shown) as progress:
            if reason := training.execution.not_compiled:
                progress.note(f"compiling failed, so its passes run eagerly: {reason}")
            if training.epochs_done or training.step:
                progress.note(f"goes on after epoch {training.epochs_done}")
            if changed := [path for path, digests in self.code.items() if "+" in digests]:
                progress.note(f"begun by other code than today's: {files_text(changed)}")
            told = {"sessions": self.sessions, "code": self.code}
            _train(training, self.entry, self.options, told, still_mine, progress, telling)
        how = {
            **training.execution.model_dump(),
            "recording": training.recording,
            "sessions": self.sessions,
            "sharing": self.options.sharing,
            "processes": self.team.count,
            "accumulate": self.options.division.accumulate,
        }
        logits = training.test_logits()

        def finish() -> Record:
            still_mine()
            return write_result(
                training, self.entry, how, self.code, self.card, logits, telling.gpu_utilisation
            )

        return self.team.broadcast(finish)


@contextlib.contextmanager
def _leased(entry: StoreEntry, options: RunOptions, label: str) -> Iterator[Callable[[], None]]:
    """Hold a run's lease, in its first process; yield what checks that it is still ours."""
    team, mine = options.division.team, []

    def on_wait(holder: LeaseHolder) -> None:
        print(f"{label}: waiting for {holder}, which trains this run", flush=True)

    with contextlib.ExitStack() as held:

        def take(wait: bool) -> None:
            taken = hold_lease(
                entry.folder, wait=wait, on_wait=on_wait, should_stop=options.stopping
            )
            mine.append(held.enter_context(taken))

        if team.count == 1:
            take(options.wait)
        else:
            _take_together(take, options)
        yield mine[0] if mine else lambda: None


def _take_together(take: Callable[[bool], None], options: RunOptions) -> None:
    """Have the first process take the lease; they wait in steps, so that none waits too long."""
    team = options.division.team
    while True:
        try:
            return team.broadcast(partial(take, False))
        except LeaseHeldError as error:
            if not options.wait:
                raise
            if team.all_reduce_max(int(options.stopping())):
                raise InterruptedRunError("stopped while another process trains the run") from error
            time.sleep(LEASE_POLL_SECONDS)


def _resume(
    training: Training, entry: StoreEntry, device: torch.device
) -> tuple[list[str], dict[str, str]]:
    """Load the newest checkpoint, if any.

    Returns:
        A description of each session, this one last, and the digests of the code of all of them.
    """
    here, division, code = environment(), training.division, current_run_code(training.spec)
    session = f"torch {here['torch']}, {here['gpu'] or here['cpu']}, code {here['sources']}"
    if division.count > 1:
        session += f", {division.team.count} processes, {division.accumulate} parts each"

    def go_on(state: dict[str, Any]) -> None:
        training.load_state(state["training"])
        state["sessions"].append(session)

    state = checkpoint.load(
        entry.folder, device, checkpoint.CheckpointOwner.of(entry, training.spec), go_on
    )
    seen = state and (len(state["training"]["history"]), state["training"]["step"])
    if seen != division.team.broadcast(lambda: seen):
        raise ProcessesError(
            f"{entry.folder}: its processes see different checkpoints; does every node have the "
            "same file system?"
        )
    if state is None:
        return [session], code
    return state["sessions"], join_session_digests(state.get("code"), code)


def _train(
    training: Training,
    entry: StoreEntry,
    options: RunOptions,
    told: dict[str, Any],
    still_mine: Callable[[], None],
    progress: RunProgress,
    telling: ProgressFile,
) -> None:
    saved = shown = time.monotonic()
    took = 0.0  # seconds, to save
    on_cpu = training.device.type == "cpu"
    team = training.division.team
    every = options.checkpoint_seconds or math.inf

    def save_checkpoint() -> None:
        nonlocal saved, took
        begun = time.monotonic()
        team.broadcast(still_mine)
        state = training.state()
        if team.rank == 0:
            of = checkpoint.CheckpointOwner.of(entry, training.spec)
            checkpoint.save(entry.folder, {"training": state, **told}, of)
            with contextlib.suppress(OSError):  # an earlier attempt's; this one is under way
                entry.failure_path.unlink()
        saved = time.monotonic()
        took = saved - begun

    def after_step(training: Training) -> None:
        nonlocal shown
        stop = options.stopping()
        # A large state in short intervals would leave little time to train.
        due = time.monotonic() - saved > max(every, SAVING_SHARE * took)
        wish = team.all_reduce_max(STOP if stop else SAVE if due and team.rank == 0 else 0)
        if wish:
            save_checkpoint()
        if wish == STOP:
            raise InterruptedRunError(
                f"stopped after epoch {training.epochs_done}, step {training.step}; saved"
            )
        done = training.epochs_done * training.steps_per_epoch + training.step
        loss = None
        if on_cpu and is_loss_due(shown):  # elsewhere it would wait for the device
            shown = time.monotonic()
            loss = (training.sums["loss/total"] / training.sums["images"]).item()
        speed = training.step * training.spec.recipe.batch_size / training.elapsed
        progress.step(done, loss, speed)
        if team.rank == 0:
            telling.step(done, speed)

    while training.epochs_done < training.spec.recipe.epochs:
        row = training.run_epoch(after_step)
        progress.epoch(row)
        # Rather at an epoch's end than soon within the next one.
        due = time.monotonic() - saved + row.seconds > options.checkpoint_seconds
        if team.all_reduce_max(int(due)):
            save_checkpoint()
