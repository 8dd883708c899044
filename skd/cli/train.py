"""`skd train` and `skd teacher`: trainings in this process. Torch is imported once they run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from skd.cli.options import (
    DEFAULT_RESULTS,
    AccumulateOption,
    AttemptOption,
    CheckpointSecondsOption,
    CompileOption,
    CompileStepsOption,
    DeviceOption,
    ExpectOption,
    IfLeased,
    IfLeasedOption,
    KernelsOption,
    LanesOption,
    MethodsArgument,
    MinutesOption,
    OutputOption,
    PairArgument,
    Precision,
    PrecisionKind,
    ResultsOption,
    SharingOption,
    SinceOption,
    StaleOption,
    Step,
    StepKind,
    StudyArgument,
    TeacherArgument,
    TeacherKind,
    TeacherViewsOption,
    ThreadsOption,
    When,
    WorkersOption,
)
from skd.common.choices import COMPILE_STEPS
from skd.common.errors import (
    FAILED,
    DeviceFailedError,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    error_text,
    suggest,
)
from skd.common.files import write_json
from skd.common.lease import LeaseHeldError, LeaseLostError
from skd.common.stopping import handle_stop_signals
from skd.common.terminal import printable
from skd.jobs.rule_outputs import batch_content
from skd.store.leftovers import remove_leftovers
from skd.store.store import Store
from skd.study.expansion import (
    Cell,
    Expansion,
    cells_digest,
    check_expected_identity,
    load_expansion,
)
from skd.study.sheet_files import StudyError

if TYPE_CHECKING:
    from skd.training.resources import Resources
    from skd.training.runs import RunOptions


def teacher(
    study: StudyArgument,
    name: TeacherArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    if_leased: IfLeasedOption = IfLeased.refuse,
    step: StepKind = Step.fast,
    precision: PrecisionKind = Precision.float32,
    compile: CompileOption = When.auto,
    compile_steps: CompileStepsOption = COMPILE_STEPS,
    kernels: KernelsOption = When.auto,
    accumulate: AccumulateOption = 1,
    workers: WorkersOption = None,
    stale: StaleOption = False,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Make one teacher of a study ready: train it, or import it, as the sheet says.

    Several processes train it together where torchrun starts this.
    """
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.store.superseded import supersede_stale_runs
    from skd.training.data_parallel import BatchPartition
    from skd.training.distributed import join_team
    from skd.training.execution import choose_execution
    from skd.training.fast_paths import FastPaths, check_fast_paths
    from skd.training.resources import Resources
    from skd.training.runs import RunOptions
    from skd.training.teacher_setup import ensure_teacher

    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_expected_identity(f"teacher {name}", node.id, expect)
    with join_team(device) as processes, handle_stop_signals() as stopping:
        execution = choose_execution(device, threads, step.value, precision.value)
        paths = FastPaths(compile.value, compile_steps, kernels.value)
        check_fast_paths(execution, paths)
        options = RunOptions(
            execution=execution,
            paths=paths,
            checkpoint_seconds=checkpoint_seconds,
            wait=if_leased is IfLeased.wait,
            stopping=stopping,
            division=BatchPartition(processes, accumulate),
        )
        store = Store(results)
        if stale and node.spec.kind == "trained":
            processes.broadcast(lambda: supersede_stale_runs(expansion, store, teachers=[name]))
        card = ensure_teacher(node, store, options, Resources(workers))
        if processes.rank:
            return
    if output:
        write_json(output, card.model_dump(mode="json"))


def train(
    study: StudyArgument,
    pair: PairArgument = None,
    methods: MethodsArgument = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="train only this seed; may be repeated (default: all of the study)"),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    if_leased: IfLeasedOption = IfLeased.refuse,
    lanes: LanesOption = None,
    minutes: MinutesOption = None,
    step: StepKind = Step.fast,
    precision: PrecisionKind = Precision.float32,
    compile: CompileOption = When.auto,
    compile_steps: CompileStepsOption = COMPILE_STEPS,
    kernels: KernelsOption = When.auto,
    teacher_views: TeacherViewsOption = TeacherKind.auto,
    accumulate: AccumulateOption = 1,
    workers: WorkersOption = None,
    stale: StaleOption = False,
    output: OutputOption = None,
    expect: ExpectOption = None,
    attempt: AttemptOption = 1,
    since: SinceOption = None,
    sharing: SharingOption = 1,
) -> None:
    """Train every run that has no record yet: of a whole study, of a pair, or of some methods.

    Without a pair this one process makes all that the study lacks: its teachers, their stored
    views where they pay, then the runs, seed by seed, so that whole seeds are finished first. Given
    a number of minutes, it saves and leaves in time.

    One failed run does not keep the others from being trained. Exit status: 0 all runs have a
    record, 1 some have failed, 75 the time was up, 143 it was asked to stop.

    Several processes train each run of a pair together where torchrun starts this:
    torchrun --standalone --nproc-per-node 4 -m skd train …
    """
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.planning.local_lanes import choose_lanes
    from skd.store.superseded import print_stale_runs, supersede_stale_runs
    from skd.training.data_parallel import BatchPartition
    from skd.training.distributed import join_team
    from skd.training.execution import choose_execution
    from skd.training.fast_paths import FastPaths, check_fast_paths
    from skd.training.prerequisites import prepare_teachers
    from skd.training.resources import Resources
    from skd.training.runs import RunOptions

    expansion, store = load_expansion(study, results), Store(results)
    cells = _cells(expansion, pair, methods)
    check_expected_identity(
        f"{pair or study}/{'+'.join(methods or ['all'])}", cells_digest(cells), expect
    )
    for unknown in set(seed or ()) - set(expansion.seeds):
        raise StudyError(f"no seed {unknown} in study {study}; allowed: {[*expansion.seeds]}")
    runs, failures, untaught = _in_order(cells, seed, by_seed=pair is None), 0, 0
    count = len(runs)
    with join_team(device) as processes, handle_stop_signals(minutes) as stopping:
        if pair is None and processes.count > 1:
            raise StudyError("several processes train the runs of a pair: name one")
        execution = choose_execution(device, threads, step.value, precision.value)
        paths = FastPaths(compile.value, compile_steps, kernels.value)
        check_fast_paths(execution, paths)

        def unfinished() -> list[tuple[Cell, int]]:
            return [run for run in runs if not store.run(run[0].runs[run[1]]).finished()]

        def begin_anew(teachers: bool) -> None:
            if stale:
                names = {cell.teacher for cell in cells if cell.teacher} if teachers else ()
                supersede_stale_runs(expansion, store, cells, seed, names)

        processes.broadcast(lambda: begin_anew(teachers=pair is None))
        processes.broadcast(lambda: print_stale_runs(expansion, store, cells, study))
        left = processes.broadcast(unfinished)
        processes.broadcast(
            lambda: [remove_leftovers(store.run(cell.runs[number])) for cell, number in runs]
        )

        def settled(cell: Cell, number: int) -> bool:
            return processes.broadcast(lambda: _settled(store, attempt, since, cell, number))

        options = RunOptions(
            execution=execution,
            teacher=None if teacher_views is TeacherKind.auto else teacher_views.value,
            paths=paths,
            checkpoint_seconds=checkpoint_seconds,
            sharing=sharing,
            stopping=stopping,
            division=BatchPartition(processes, accumulate),
        )
        wait = if_leased is IfLeased.wait
        if pair is None:
            ready = replace(options, wait=wait)
            lost = prepare_teachers(expansion, [cell for cell, _ in left], store, ready, workers)
            begin_anew(teachers=False)  # what a teacher taught that is another one now
            left = unfinished()
            failures = untaught = sum(cell.teacher in lost for cell, _ in left)
            runs = left = [(cell, number) for cell, number in left if cell.teacher not in lost]
        if lanes is None and pair is None and execution.device == "cuda":
            lanes = choose_lanes(None, expansion, cells, store, len(left))
        lanes = min(lanes or 1, max(1, len(left))) if processes.count == 1 else 1
        options = replace(options, sharing=max(sharing, lanes))
        train_one = partial(_train_one, expansion, store, Resources(workers, lanes))
        failures += _train(runs, train_one, options, settled, wait, lanes)
    if output and not processes.rank:
        write_json(output, batch_content(expansion, cells, store))
    if failures:
        if not processes.rank:
            why = (
                f"; {untaught} of them were not begun, as their teacher failed" if untaught else ""
            )
            print(f"{failures} of {count} runs have no record{why}", file=sys.stderr)
        raise typer.Exit(FAILED)
    if pair is None:
        print(f"all {count} runs have a record; the report: skd-report {study}")


def _cells(expansion: Expansion, pair: str | None, methods: list[str] | None) -> list[Cell]:
    """Return the cells that were asked for.

    Raises:
        StudyError: there are none such.
    """
    if pair is None:
        return list(expansion.cells)
    if methods:
        return [expansion.cell(pair, method) for method in methods]
    if found := [cell for cell in expansion.cells if cell.pair == pair]:
        return found
    known = dict.fromkeys(cell.pair for cell in expansion.cells)
    raise StudyError(f"study {expansion.study} has no pair '{pair}'{suggest(pair, known)}")


def _in_order(cells: list[Cell], seeds: list[int] | None, by_seed: bool) -> list[tuple[Cell, int]]:
    """Return the runs of some cells: cell by cell, or seed by seed."""
    runs = [(cell, seed) for cell in cells for seed in cell.runs if not seeds or seed in seeds]
    return sorted(runs, key=lambda run: run[1]) if by_seed else runs


def _settled(store: Store, attempt: int, since: float | None, cell: Cell, seed: int) -> bool:
    """Whether a run has failed for good, as far as this job goes."""
    failure = store.run(cell.runs[seed]).failure_or_none()
    if failure is None:
        return False
    here = since is not None and datetime.fromisoformat(failure.failed_at).timestamp() >= since
    return here or (attempt > 1 and failure.repeats)


def _train(
    runs: list[tuple[Cell, int]],
    train_one: Callable[[Cell, int, RunOptions], bool],
    options: RunOptions,
    settled: Callable[[Cell, int], bool],
    wait: bool,
    lanes: int,
) -> int:
    """Train runs, those that others train last; return how many have no record."""
    from skd.training.lanes import run_in_lanes

    failures: list[tuple[Cell, int]] = []
    held: list[tuple[Cell, int, Exception]] = []

    def work(run: tuple[Cell, int]) -> None:
        cell, seed = run
        if options.division.team.all_reduce_max(int(options.stopping())):
            raise InterruptedRunError(f"stopped before {cell.key} seed {seed}")
        if settled(cell, seed):
            failures.append(run)
            print(f"{cell.key} seed {seed}: it would only fail again", file=sys.stderr, flush=True)
            return
        try:
            if not train_one(cell, seed, options):
                failures.append(run)
        except (LeaseHeldError, LeaseLostError) as error:
            held.append((cell, seed, error))

    run_in_lanes(work, runs, lanes)
    for cell, seed, error in held:
        if not wait:
            failures.append((cell, seed))
            said = printable(f"NOT TRAINED {cell.key} seed {seed}: {error}")
            print(said, file=sys.stderr, flush=True)
        elif settled(cell, seed) or not train_one(cell, seed, replace(options, wait=True)):
            failures.append((cell, seed))
    return len(failures)


def _train_one(
    expansion: Expansion,
    store: Store,
    materials: Resources,
    cell: Cell,
    seed: int,
    options: RunOptions,
) -> bool:
    """Train one run; return whether it has a record. What fails is told, and is of it alone."""
    from skd.training.runs import complete_run

    label, identity = f"{cell.key} seed {seed}", cell.runs[seed]
    teacher = None
    if cell.teacher is not None:
        teacher = store.teacher(expansion.teacher(cell.teacher).id)
        if teacher.card() is None:
            raise StudyError(
                f"the teacher is not ready; first: skd teacher {expansion.study} {cell.teacher}"
            )
    try:
        record = complete_run(
            cell.run(seed), store.run(identity), options, label, teacher, materials
        )
    except (InterruptedRunError, DeviceFailedError, LeaseHeldError, LeaseLostError):
        raise
    except (SkdError, OSError) as error:
        if options.division.team.rank == 0:
            said = "FAILED" if isinstance(error, RunFailedError) else f"NOT TRAINED {label}:"
            reason = error if isinstance(error, SkdError) else error_text(error)
            print(printable(f"{said} {reason}"), file=sys.stderr, flush=True)
        return False
    if options.division.team.rank:
        return True
    print(
        f"{label}: last {record.last.top1:.2f} %, best {record.best.top1:.2f} % "
        f"(epoch {record.best.epoch}), run {identity}",
        flush=True,
    )
    return True
