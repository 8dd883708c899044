"""A run from its current state to its record: resume, train, save checkpoints, write the result."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from skd.common.choices import TeacherSource
from skd.common.errors import DeviceFailedError, InterruptedRunError, RunFailedError, error_text
from skd.common.lease import LeaseLostError
from skd.kernels.tables import KernelsError
from skd.store.records import Record, TeacherCard
from skd.store.stale import files_text
from skd.store.store import StoreEntry
from skd.study.spec import RunSpec
from skd.training.checkpoint import CheckpointError
from skd.training.compiling import CompilerError
from skd.training.cuda_graph import own_stream
from skd.training.data_parallel import BatchPartition, DivisionError
from skd.training.distributed import lost_process_error
from skd.training.environment import is_device_error, reset_peak_memory
from skd.training.execution import Execution, ExecutionError
from skd.training.fast_paths import FastPaths, decide_fast_paths, without_compiler
from skd.training.loop import NonFiniteLossError, Training
from skd.training.progress import RunProgress, is_loss_due, run_progress
from skd.training.progress_file import ProgressFile
from skd.training.resources import DeviceDataset, Resources, TeacherRequest
from skd.training.run_folder import RunFolder
from skd.training.run_logs import RunLogs
from skd.training.sessions import Sessions

TRAIN_TO_SAVE_RATIO = 20  # training takes at least this many times as long as saving
SAVE, STOP = 1, 2  # what a process requests after a step; STOP also saves


@dataclass(frozen=True)
class RunOptions:
    """How to train a run. Except for rounding, the options do not change its numbers.

    A run that is resumed keeps its execution, the source of its teacher's outputs and its fast
    paths, whatever the options are.

    Attributes:
        execution: how a new run is executed.
        teacher_source: where a new run takes its teacher's outputs from; ``None``: stored outputs,
            if they exist.
        fast_paths: which forward passes of a new run are compiled, and which kernels it uses.
        checkpoint_seconds: longest time between two checkpoints; 0: one checkpoint per epoch.
        sharing: number of trainings that share the device, this one included.
        wait: whether to wait for another process that trains the same run. If not, LeaseHeldError
            is raised.
        should_stop: called after each step; true: save and stop.
        partition: how batches are divided among processes and into parts.
        logs: which logs runs write beside their records.
    """

    execution: Execution
    teacher_source: TeacherSource | None = None
    fast_paths: FastPaths = field(default_factory=FastPaths)
    checkpoint_seconds: float = 60.0
    sharing: int = 1
    wait: bool = False
    should_stop: Callable[[], bool] = lambda: False
    partition: BatchPartition = field(default_factory=BatchPartition)
    logs: RunLogs = field(default_factory=RunLogs)


def complete_run(
    spec: RunSpec,
    entry: StoreEntry,
    options: RunOptions,
    label: str,
    teacher_entry: StoreEntry | None = None,
    resources: Resources | None = None,
) -> Record:
    """Return the record of a run. What is missing is trained first.

    Args:
        spec: the run.
        entry: its folder in the store.
        options: how to train it.
        label: its name in messages.
        teacher_entry: the folder of its teacher; ``None`` for a run without a teacher.
        resources: what the runs of this process share; ``None``: nothing.

    Raises:
        RunFailedError: the run failed. A failure note is in its folder.
        DeviceFailedError: the device, or one process of several, failed. No run of this process can
            continue.
        InterruptedRunError: ``should_stop`` returned true. A checkpoint has been saved.
        LeaseHeldError: another process trains the run, and ``wait`` is false.
        ExecutionError: the run cannot be executed on this machine.
        CheckpointError: the run cannot resume from its checkpoints.
        IdentityError: the folder belongs to another run.
        StoreError: the folder is a link to another run's folder, or its record cannot be read or
            is inconsistent.
    """
    folder = RunFolder(spec, entry, label, options.partition)
    folder.check()
    if (record := folder.record()) is not None:
        folder.remove_leftovers()
        return record
    with folder.leased(options.wait, options.should_stop):
        if (record := folder.record()) is not None:  # another process has finished it meanwhile
            return record
        folder.write_spec()
        teacher = TeacherRequest(spec, teacher_entry) if teacher_entry else None
        execution = folder.saved_execution()
        is_new = execution is None
        if execution is None:
            execution = folder.team.broadcast(lambda: _new_execution(options, teacher))
        _check_device(execution, folder)
        device = execution.configure_process()
        with own_stream(device):
            resources = resources or Resources()
            trainer = RunTrainer(folder, options, resources, teacher, execution, is_new, device)
            return trainer.complete()


def _new_execution(options: RunOptions, teacher: TeacherRequest | None) -> Execution:
    """Return the execution of a new run. Its fast paths are decided later."""
    outputs = None
    if teacher is not None:
        device = torch.device(options.execution.device)
        outputs = teacher.choose(options.teacher_source, device)
    return options.execution.model_copy(update={"teacher": outputs})


def _check_device(execution: Execution, folder: RunFolder) -> None:
    """Raise ExecutionError if the processes were started for another kind of device."""
    if folder.team.device not in (None, execution.device):
        raise ExecutionError(
            f"{folder.label} was started on {execution.device}: start its processes with "
            f"--device {execution.device}, or remove its folder to start it again"
        )


class RunTrainer:
    """Trains a run in this process, while the process or its team holds the lease.

    Args:
        folder: of the run.
        options: how to train it.
        resources: what the runs of this process share.
        teacher: how to load its teacher; ``None`` for a run without a teacher.
        execution: how it is executed.
        is_new: whether the run has no checkpoint. The fast paths are then decided here.
        device: of the execution.
    """

    def __init__(
        self,
        folder: RunFolder,
        options: RunOptions,
        resources: Resources,
        teacher: TeacherRequest | None,
        execution: Execution,
        is_new: bool,
        device: torch.device,
    ) -> None:
        self.folder, self.options, self.resources = folder, options, resources
        self.teacher, self.execution, self.is_new = teacher, execution, is_new
        self.device, self.team = device, folder.team
        self.training: Training | None = None
        self.sessions: Sessions | None = None
        self.teacher_card: TeacherCard | None = None
        self._timer: CheckpointTimer | None = None
        self._loss_shown = 0.0

    def complete(self) -> Record:
        """Train the rest of the run and return its record. Errors as `complete_run`."""
        started = datetime.now(UTC)
        if self.options.sharing == 1:
            reset_peak_memory(self.device)
        try:
            self._build()
            gpu_utilisation = self._train()
            return self._write_result(gpu_utilisation)
        except (InterruptedRunError, LeaseLostError, ExecutionError, CheckpointError):
            raise
        except Exception as raised:
            error = lost_process_error(raised) or raised
            epochs_done = self.training.epochs_done if self.training else 0
            self.folder.write_failure(error, epochs_done, since=started)
            raise self._failure(error) from raised
        finally:
            if self.training is not None:
                self.training.close()

    def _failure(self, error: Exception) -> RunFailedError | DeviceFailedError:
        """Return the error to raise.

        A DeviceFailedError means that this process cannot train further runs.
        """
        same_in_all_processes = self.team.world_size == 1 or isinstance(
            error, NonFiniteLossError | DivisionError
        )
        can_continue = same_in_all_processes and not is_device_error(error)
        kind = RunFailedError if can_continue else DeviceFailedError
        return kind(f"{self.folder.label}: {error_text(error)}")

    def _build(self) -> None:
        """Build the training, resume it, and fix the execution of a new run."""
        dataset = self.resources.dataset(self.folder.spec.dataset, self.device)
        try:
            if self.is_new:
                self.execution = self.team.broadcast(lambda: self._decide_fast_paths(dataset))
            training = self._open(dataset)
        except KernelsError as error:
            raise ExecutionError(f"{self.folder.label}: {error}") from error
        if training.epochs_done == self.folder.spec.recipe.epochs:  # only the record is missing
            return
        try:
            training.prepare()
        except CompilerError as error:
            self._open_without_compiler(dataset, error)
        if self.is_new:
            self.folder.save_execution(self.execution)

    def _decide_fast_paths(self, dataset: DeviceDataset) -> Execution:
        """Return the execution with its fast paths, which depend on all steps of the run."""
        recipe = self.folder.spec.recipe
        execution = decide_fast_paths(
            self.execution,
            self.options.fast_paths,
            steps=recipe.epochs * recipe.steps_per_epoch(len(dataset.images.train_labels)),
            compilable=self.options.partition.num_parts == 1
            and recipe.bn_batch is None
            and dataset.evaluator.on_device,
        )
        reason = self.resources.not_compiled.get(self.folder.spec.network)
        if reason and (execution.compiled or execution.kernels):
            return without_compiler(execution, reason)
        return execution

    def _open(self, dataset: DeviceDataset) -> Training:
        """Build the training and load the newest checkpoint."""
        loaded = None
        if self.teacher is not None:
            loaded = self.teacher.load(self.resources, self.execution, self.device)
            self.teacher_card = loaded.card
        self.training = Training(
            self.folder.spec,
            dataset,
            loaded and loaded.teacher,
            self.execution,
            self.options.partition,
        )
        self.sessions = self.folder.resume(self.training, self.device)
        return self.training

    def _open_without_compiler(self, dataset: DeviceDataset, error: CompilerError) -> None:
        """Build a new run again, for an execution that generates no code.

        Raises:
            ExecutionError: the run is not new. Without generated code its numbers would change.
        """
        if not self.is_new:
            raise ExecutionError(
                f"{self.folder.label} was started with compiled passes or kernels, and they cannot "
                f"be compiled on this machine ({error}); make the compiler work, or remove "
                f"{self.folder.entry.folder} to start the run again"
            ) from error
        self.resources.not_compiled[self.folder.spec.network] = str(error)
        self.execution = without_compiler(self.execution, str(error))
        self._open(dataset)

    def _train(self) -> float | None:
        """Train the remaining epochs; return the utilisation of the GPU, if it was sampled."""
        training, epochs = self.training, self.folder.spec.recipe.epochs
        steps, on_gpu = epochs * training.steps_per_epoch, self.device.type == "cuda"
        progress_file = ProgressFile(self.folder.entry, epochs, training.steps_per_epoch, on_gpu)
        alone, visible = self.options.sharing == 1, self.team.rank == 0
        logs = self.options.logs if visible else RunLogs()  # the first process writes them
        with (
            run_progress(self.folder.label, epochs, steps, alone, visible) as progress,
            logs.opened(self.folder.entry, self.folder.label, training.history) as log,
        ):
            self._print_notes(progress)
            self._timer = CheckpointTimer(self.options.checkpoint_seconds)
            self._loss_shown = time.monotonic()

            def after_step(training: Training) -> None:
                self._save_or_stop()
                self._show_progress(progress, progress_file)

            while training.epochs_done < epochs:
                metrics = training.run_epoch(after_step)
                progress.epoch(metrics)
                log.epoch(metrics)
                # Better to save at the end of an epoch than soon after the start of the next one.
                if self.team.all_reduce_max(int(self._timer.is_due_within(metrics.seconds))):
                    self._save_checkpoint()
        return progress_file.gpu_utilisation

    def _print_notes(self, progress: RunProgress) -> None:
        if reason := self.execution.not_compiled:
            progress.note(f"compiling failed, so forward passes run eagerly: {reason}")
        if self.training.steps_done:
            progress.note(f"resumes after epoch {self.training.epochs_done}")
        if changed := self.sessions.changed_files():
            progress.note(f"started with a different version of the code: {files_text(changed)}")

    def _save_or_stop(self) -> None:
        """Save a checkpoint after a step if a process requests it; stop if a process must stop.

        Raises:
            InterruptedRunError: a process must stop. A checkpoint has been saved.
        """
        must_stop = self.options.should_stop()
        must_save = self._timer.is_due() and self.team.rank == 0
        request = self.team.all_reduce_max(STOP if must_stop else SAVE if must_save else 0)
        if request:
            self._save_checkpoint()
        if request == STOP:
            raise InterruptedRunError(
                f"stopped after epoch {self.training.epochs_done}, step {self.training.step}; saved"
            )

    def _save_checkpoint(self) -> None:
        with self._timer.saving():
            self.folder.save_checkpoint(self.training, self.sessions)

    def _show_progress(self, progress: RunProgress, progress_file: ProgressFile) -> None:
        """Show how far the run is, after a step."""
        training, loss = self.training, None
        # On a GPU, reading the loss would wait for the device.
        if self.device.type == "cpu" and is_loss_due(self._loss_shown):
            self._loss_shown = time.monotonic()
            loss = (training.sums["loss/total"] / training.sums["images"]).item()
        speed = training.step * training.spec.recipe.batch_size / training.elapsed
        progress.step(training.steps_done, loss, speed)
        if self.team.rank == 0:
            progress_file.step(training.steps_done, speed)

    def _write_result(self, gpu_utilisation: float | None) -> Record:
        execution: dict[str, Any] = {
            **self.execution.model_dump(),
            "recording": str(self.training.recorder),
            "sessions": self.sessions.descriptions,
            "sharing": self.options.sharing,
            "processes": self.team.world_size,
            "accumulate": self.options.partition.accumulate,
        }
        logits = self.training.test_logits()
        return self.folder.write_result(
            self.training, execution, self.sessions, self.teacher_card, logits, gpu_utilisation
        )


class CheckpointTimer:
    """Decides when a checkpoint is due.

    Args:
        interval: seconds between two checkpoints; 0: one checkpoint per epoch.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0

    def is_due(self) -> bool:
        """Return whether to save after a step.

        If saving takes long, the interval grows, so that most of the time is spent on training.
        """
        shortest = max(self.interval or math.inf, TRAIN_TO_SAVE_RATIO * self._save_seconds)
        return time.monotonic() - self._saved_at > shortest

    def is_due_within(self, seconds: float) -> bool:
        """Return whether the interval ends within some seconds."""
        return time.monotonic() - self._saved_at + seconds > self.interval

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measure the time of a save, and start the next interval after it."""
        started = time.monotonic()
        yield
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started
