"""One run from wherever it stands to its record: lease, resume, checkpoints, failure note."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import torch

from skd.errors import DeviceFailedError, InterruptedRunError, RunFailedError
from skd.lease import Holder, LeaseHeldError, LeaseLostError, lease
from skd.records import Record
from skd.spec import RunSpec
from skd.store import Entry
from skd.teacher_views import TeacherOutputs
from skd.training import checkpoint
from skd.training.division import Division, DivisionError
from skd.training.execution import (
    Execution,
    ExecutionError,
    device_failed,
    environment,
    freeze,
    reset_peak_memory,
)
from skd.training.loop import NonFiniteLossError, Training
from skd.training.materials import Materials, choose_teacher
from skd.training.outcome import leave_failure, leave_record
from skd.training.processes import ProcessesError, others_ended
from skd.training.progress import RunProgress, run_progress, wants_loss
from skd.training.telling import Telling

SAVING_SHARE = 20  # training takes at least so many times as long as saving
LEASE_POLL_SECONDS = 5.0
SAVE, STOP = 1, 2  # what a process may wish after a step; STOP saves too


@dataclass(frozen=True)
class Options:
    """How to go about a run; nothing here changes its numbers but the execution's rounding.

    Attributes:
        execution: for a run that is begun now; one that goes on keeps its own.
        teacher: where its teacher's outputs come from, likewise; none: stored views, where there
            are some.
        checkpoint_seconds: at most so long between checkpoints; 0: every epoch.
        sharing: trainings that share the device, of which this is one.
        wait: wait for another process that trains the same run, instead of refusing.
        stopping: asked after each step; true: save and leave.
        division: of the batches, among the processes of this run.
    """

    execution: Execution
    teacher: TeacherOutputs | None = None
    checkpoint_seconds: float = 60.0
    sharing: int = 1
    wait: bool = False
    stopping: Callable[[], bool] = lambda: False
    division: Division = field(default_factory=Division)


def complete(
    spec: RunSpec,
    entry: Entry,
    options: Options,
    label: str,
    teacher: Entry | None = None,
    materials: Materials | None = None,
) -> Record:
    """Return a run's record, training what is left of it.

    Args:
        spec: the run.
        entry: its folder in the store.
        options: how to go about it.
        label: how messages name it.
        teacher: its teacher's folder; none for a run without one.
        materials: what the process's runs share; none: nothing.

    Raises:
        RunFailedError: it failed, now; a failure note has been left.
        DeviceFailedError: its device did: no run of this process can go on.
        InterruptedRunError: it was asked to stop, and has saved.
        LeaseHeldError: another process trains it, and it shall not be waited for.
        ExecutionError: it cannot be executed here.
    """
    team = options.division.team
    if (record := team.told(entry.record)) is not None:
        return record

    def execution_asked_for() -> Execution:
        device = torch.device(options.execution.device)
        how = choose_teacher(options.teacher, spec, teacher, device) if teacher else None
        return options.execution.model_copy(update={"teacher": how})

    with _leased(entry, options, label) as still_mine:
        if (record := team.told(entry.record)) is not None:  # finished while we waited
            return record
        begun = datetime.now(UTC)
        team.told(lambda: entry.write_spec(spec))
        execution = team.told(lambda: freeze(entry.folder, execution_asked_for))
        if team.device not in (None, execution.device):
            raise ExecutionError(
                f"{label} was begun on {execution.device}: start its processes with "
                f"--device {execution.device}, or remove its folder to begin it anew"
            )
        device = execution.apply()
        if options.sharing == 1:
            reset_peak_memory(device)
        training = None
        try:
            materials = materials or Materials()
            material = materials.data(spec.dataset, device)
            at_hand = materials.teacher(spec, teacher, execution, device) if teacher else None
            training = Training(
                spec, material, at_hand and at_hand.outputs, execution, options.division
            )
            sessions = _resume(training, entry, device)
            telling = Telling(
                entry, spec.recipe.epochs, training.steps_per_epoch, device.type == "cuda"
            )
            steps = spec.recipe.epochs * training.steps_per_epoch
            alone = options.sharing == 1
            with run_progress(
                label, spec.recipe.epochs, steps, alone, shown=team.rank == 0
            ) as progress:
                if training.epochs_done or training.step:
                    progress.note(f"goes on after epoch {training.epochs_done}")
                _train(training, entry, options, sessions, still_mine, progress, telling)
            how = {
                **execution.model_dump(),
                "recording": training.recording,
                "sessions": sessions,
                "sharing": options.sharing,
                "processes": team.count,
                "accumulate": options.division.accumulate,
            }
            card = at_hand and at_hand.card
            logits = training.test_logits()

            def finish() -> Record:
                still_mine()
                return leave_record(training, entry, how, card, logits, telling.gpu_utilisation)

            return team.told(finish)
        except (InterruptedRunError, LeaseLostError):
            raise
        except Exception as raised:
            error = others_ended(raised) or raised
            still_mine()
            # One process's error ends the others: theirs say no more than that.
            known = entry.failure() if team.count > 1 else None
            if known is None or datetime.fromisoformat(known.failed_at) < begun:
                leave_failure(entry, error, training.epochs_done if training else 0)
            of_all = team.count == 1 or isinstance(error, NonFiniteLossError | DivisionError)
            failed = RunFailedError if of_all and not device_failed(error) else DeviceFailedError
            raise failed(f"{label}: {error}") from raised
        finally:
            if training is not None:
                training.views.close()


@contextlib.contextmanager
def _leased(entry: Entry, options: Options, label: str) -> Iterator[Callable[[], None]]:
    """Hold a run's lease, in its first process; yield what checks that it is still ours."""
    team, mine = options.division.team, []

    def on_wait(holder: Holder) -> None:
        print(f"{label}: waiting for {holder}, which trains this run", flush=True)

    with contextlib.ExitStack() as held:

        def take(wait: bool) -> None:
            taken = lease(entry.folder, wait=wait, on_wait=on_wait, stopping=options.stopping)
            mine.append(held.enter_context(taken))

        if team.count == 1:
            take(options.wait)
        else:
            _take_together(take, options)
        yield mine[0] if mine else lambda: None


def _take_together(take: Callable[[bool], None], options: Options) -> None:
    """Have the first process take the lease; they wait in steps, so that none waits too long."""
    team = options.division.team
    while True:
        try:
            return team.told(partial(take, False))
        except LeaseHeldError as error:
            if not options.wait:
                raise
            if team.most(int(options.stopping())):
                raise InterruptedRunError("stopped while another process trains the run") from error
            time.sleep(LEASE_POLL_SECONDS)


def _resume(training: Training, entry: Entry, device: torch.device) -> list[str]:
    """Load the newest checkpoint, if any; return a description of each session, this one last."""
    here, division = environment(), training.division
    session = f"torch {here['torch']}, {here['gpu'] or here['cpu']}"
    if division.count > 1:
        session += f", {division.team.count} processes, {division.accumulate} parts each"
    state = checkpoint.load(entry.folder, device)
    seen = state and (len(state["training"]["history"]), state["training"]["step"])
    if seen != division.team.told(lambda: seen):
        raise ProcessesError(
            f"{entry.folder}: its processes see different checkpoints; does every node have the "
            "same file system?"
        )
    if state is None:
        return [session]
    training.load_state(state["training"])
    return [*state["sessions"], session]


def _train(
    training: Training,
    entry: Entry,
    options: Options,
    sessions: list[str],
    still_mine: Callable[[], None],
    progress: RunProgress,
    telling: Telling,
) -> None:
    saved = shown = time.monotonic()
    took = 0.0  # seconds, to save
    on_cpu = training.device.type == "cpu"
    team = training.division.team
    every = options.checkpoint_seconds or math.inf

    def save_checkpoint() -> None:
        nonlocal saved, took
        begun = time.monotonic()
        team.told(still_mine)
        state = training.state()
        if team.rank == 0:
            checkpoint.save(entry.folder, {"training": state, "sessions": sessions})
            # An earlier attempt's; this one is under way.
            entry.failure_path.unlink(missing_ok=True)
        saved = time.monotonic()
        took = saved - begun

    def after_step(training: Training) -> None:
        nonlocal shown
        stop = options.stopping()
        # A large state in short intervals would leave little time to train.
        due = time.monotonic() - saved > max(every, SAVING_SHARE * took)
        wish = team.most(STOP if stop else SAVE if due and team.rank == 0 else 0)
        if wish:
            save_checkpoint()
        if wish == STOP:
            raise InterruptedRunError(
                f"stopped after epoch {training.epochs_done}, step {training.step}; saved"
            )
        done = training.epochs_done * training.steps_per_epoch + training.step
        loss = None
        if on_cpu and wants_loss(shown):  # elsewhere it would wait for the device
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
        if team.most(int(due)):
            save_checkpoint()
