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
    RESULTS,
    Accumulate,
    Attempt,
    CheckpointSeconds,
    Compile,
    CompileSteps,
    Device,
    Expect,
    IfLeased,
    Kernels,
    Lanes,
    Leased,
    Methods,
    Minutes,
    Output,
    PairName,
    Precision,
    PrecisionKind,
    Results,
    Sharing,
    Since,
    Stale,
    Step,
    StepKind,
    Study,
    TeacherFrom,
    TeacherKind,
    TeacherName,
    Threads,
    When,
    Workers,
)
from skd.common.errors import (
    FAILED,
    DeviceFailedError,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    described,
    suggest,
)
from skd.common.execution_choices import COMPILE_STEPS
from skd.common.files import write_json
from skd.common.lease import LeaseHeldError, LeaseLostError
from skd.common.stopping import stoppable
from skd.common.terminal import printable
from skd.jobs.rule_outputs import cells_content
from skd.store.leftovers import tidy
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion, check_unchanged, digest_of, load_expansion
from skd.study.sheet_files import StudyError

if TYPE_CHECKING:
    from skd.training.resources import Materials
    from skd.training.runs import Options


def teacher(
    study: Study,
    name: TeacherName,
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    if_leased: Leased = IfLeased.refuse,
    step: StepKind = Step.fast,
    precision: PrecisionKind = Precision.float32,
    compile: Compile = When.auto,
    compile_steps: CompileSteps = COMPILE_STEPS,
    kernels: Kernels = When.auto,
    accumulate: Accumulate = 1,
    workers: Workers = None,
    stale: Stale = False,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Make one teacher of a study ready: train it, or import it, as the sheet says.

    Several processes train it together where torchrun starts this.
    """
    from skd.training.code_here import note_code

    note_code()
    from skd.store.superseded import begin_stale_anew
    from skd.training.data_parallel import Division
    from skd.training.distributed import team
    from skd.training.execution import choose
    from skd.training.fast_paths import FastPaths, check
    from skd.training.resources import Materials
    from skd.training.runs import Options
    from skd.training.teachers import ready_teacher

    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_unchanged(f"teacher {name}", node.id, expect)
    with team(device) as processes, stoppable() as stopping:
        execution = choose(device, threads, step.value, precision.value)
        paths = FastPaths(compile.value, compile_steps, kernels.value)
        check(execution, paths)
        options = Options(
            execution=execution,
            paths=paths,
            checkpoint_seconds=checkpoint_seconds,
            wait=if_leased is IfLeased.wait,
            stopping=stopping,
            division=Division(processes, accumulate),
        )
        store = Store(results)
        if stale and node.spec.kind == "trained":
            processes.told(lambda: begin_stale_anew(expansion, store, teachers=[name]))
        card = ready_teacher(node, store, options, Materials(workers))
        if processes.rank:
            return
    if output:
        write_json(output, card.model_dump(mode="json"))


def train(
    study: Study,
    pair: PairName = None,
    methods: Methods = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="train only this seed; may be repeated (default: all of the study)"),
    ] = None,
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    if_leased: Leased = IfLeased.refuse,
    lanes: Lanes = None,
    minutes: Minutes = None,
    step: StepKind = Step.fast,
    precision: PrecisionKind = Precision.float32,
    compile: Compile = When.auto,
    compile_steps: CompileSteps = COMPILE_STEPS,
    kernels: Kernels = When.auto,
    teacher_views: TeacherFrom = TeacherKind.auto,
    accumulate: Accumulate = 1,
    workers: Workers = None,
    stale: Stale = False,
    output: Output = None,
    expect: Expect = None,
    attempt: Attempt = 1,
    since: Since = None,
    sharing: Sharing = 1,
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
    from skd.training.code_here import note_code

    note_code()
    from skd.planning.sharing import lanes_here
    from skd.store.superseded import begin_stale_anew, tell_stale
    from skd.training.data_parallel import Division
    from skd.training.distributed import team
    from skd.training.execution import choose
    from skd.training.fast_paths import FastPaths, check
    from skd.training.resources import Materials
    from skd.training.runs import Options
    from skd.training.whole_study import make_ready

    expansion, store = load_expansion(study, results), Store(results)
    cells = _cells(expansion, pair, methods)
    check_unchanged(f"{pair or study}/{'+'.join(methods or ['all'])}", digest_of(cells), expect)
    for unknown in set(seed or ()) - set(expansion.seeds):
        raise StudyError(f"no seed {unknown} in study {study}; allowed: {[*expansion.seeds]}")
    runs, failures, untaught = _in_order(cells, seed, by_seed=pair is None), 0, 0
    count = len(runs)
    with team(device) as processes, stoppable(minutes) as stopping:
        if pair is None and processes.count > 1:
            raise StudyError("several processes train the runs of a pair: name one")
        execution = choose(device, threads, step.value, precision.value)
        paths = FastPaths(compile.value, compile_steps, kernels.value)
        check(execution, paths)

        def unfinished() -> list[tuple[Cell, int]]:
            return [run for run in runs if not store.run(run[0].runs[run[1]]).finished()]

        def begin_anew(teachers: bool) -> None:
            if stale:
                names = {cell.teacher for cell in cells if cell.teacher} if teachers else ()
                begin_stale_anew(expansion, store, cells, seed, names)

        processes.told(lambda: begin_anew(teachers=pair is None))
        processes.told(lambda: tell_stale(expansion, store, cells, study))
        left = processes.told(unfinished)
        processes.told(lambda: [tidy(store.run(cell.runs[number])) for cell, number in runs])

        def settled(cell: Cell, number: int) -> bool:
            return processes.told(lambda: _settled(store, attempt, since, cell, number))

        options = Options(
            execution=execution,
            teacher=None if teacher_views is TeacherKind.auto else teacher_views.value,
            paths=paths,
            checkpoint_seconds=checkpoint_seconds,
            sharing=sharing,
            stopping=stopping,
            division=Division(processes, accumulate),
        )
        wait = if_leased is IfLeased.wait
        if pair is None:
            ready = replace(options, wait=wait)
            lost = make_ready(expansion, [cell for cell, _ in left], store, ready, workers)
            begin_anew(teachers=False)  # what a teacher taught that is another one now
            left = unfinished()
            failures = untaught = sum(cell.teacher in lost for cell, _ in left)
            runs = left = [(cell, number) for cell, number in left if cell.teacher not in lost]
        if lanes is None and pair is None and execution.device == "cuda":
            lanes = lanes_here(None, expansion, cells, store, len(left))
        lanes = min(lanes or 1, max(1, len(left))) if processes.count == 1 else 1
        options = replace(options, sharing=max(sharing, lanes))
        train_one = partial(_train_one, expansion, store, Materials(workers, lanes))
        failures += _train(runs, train_one, options, settled, wait, lanes)
    if output and not processes.rank:
        write_json(output, cells_content(expansion, cells, store))
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
    failure = store.run(cell.runs[seed]).failed()
    if failure is None:
        return False
    here = since is not None and datetime.fromisoformat(failure.failed_at).timestamp() >= since
    return here or (attempt > 1 and failure.repeats)


def _train(
    runs: list[tuple[Cell, int]],
    train_one: Callable[[Cell, int, Options], bool],
    options: Options,
    settled: Callable[[Cell, int], bool],
    wait: bool,
    lanes: int,
) -> int:
    """Train runs, those that others train last; return how many have no record."""
    from skd.training.lanes import in_lanes

    failures: list[tuple[Cell, int]] = []
    held: list[tuple[Cell, int, Exception]] = []

    def work(run: tuple[Cell, int]) -> None:
        cell, seed = run
        if options.division.team.most(int(options.stopping())):
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

    in_lanes(work, runs, lanes)
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
    materials: Materials,
    cell: Cell,
    seed: int,
    options: Options,
) -> bool:
    """Train one run; return whether it has a record. What fails is told, and is of it alone."""
    from skd.training.runs import complete

    label, identity = f"{cell.key} seed {seed}", cell.runs[seed]
    teacher = None
    if cell.teacher is not None:
        teacher = store.teacher(expansion.teacher(cell.teacher).id)
        if teacher.card() is None:
            raise StudyError(
                f"the teacher is not ready; first: skd teacher {expansion.study} {cell.teacher}"
            )
    try:
        record = complete(cell.run(seed), store.run(identity), options, label, teacher, materials)
    except (InterruptedRunError, DeviceFailedError, LeaseHeldError, LeaseLostError):
        raise
    except (SkdError, OSError) as error:
        if options.division.team.rank == 0:
            said = "FAILED" if isinstance(error, RunFailedError) else f"NOT TRAINED {label}:"
            reason = error if isinstance(error, SkdError) else described(error)
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
