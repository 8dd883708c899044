"""The commands `skd teacher` and `skd train`. Torch is imported when they run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
    IfLeasedOption,
    KernelsOption,
    LanesOption,
    MethodsArgument,
    MinutesOption,
    OutputOption,
    PairArgument,
    PrecisionOption,
    ResultsOption,
    RunLogDirOption,
    RunLogOption,
    SharingOption,
    SinceOption,
    StaleOption,
    StepOption,
    StudyArgument,
    TeacherArgument,
    TeacherViewsOption,
    ThreadsOption,
    WorkersOption,
)
from skd.common.choices import (
    COMPILE_STEPS,
    FastPathMode,
    Precision,
    RunLog,
    StepMode,
    TeacherSource,
    TeacherSourceChoice,
)
from skd.common.errors import FAILED, suggest
from skd.common.files import write_json
from skd.common.stopping import handle_stop_signals
from skd.jobs.rule_outputs import batch_content
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion, cells_digest, check_expected_identity
from skd.study.expansion_files import load_expansion
from skd.study.sheet_files import StudyError

if TYPE_CHECKING:
    from skd.training.distributed import Team
    from skd.training.runs import RunOptions
    from skd.training.study_training import CellSeed, StudyTraining


def teacher(
    study: StudyArgument,
    name: TeacherArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    if_leased: IfLeasedOption = "refuse",
    step: StepOption = "fast",
    precision: PrecisionOption = "float32",
    compile: CompileOption = "auto",
    compile_steps: CompileStepsOption = COMPILE_STEPS,
    kernels: KernelsOption = "auto",
    accumulate: AccumulateOption = 1,
    workers: WorkersOption = None,
    stale: StaleOption = False,
    log: RunLogOption = "none",
    log_dir: RunLogDirOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Train or import one teacher of a study, as its sheet says.

    Several processes train it together if torchrun starts this command.
    """
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.store.superseded import supersede_stale_runs
    from skd.training.distributed import join_team
    from skd.training.resources import Resources
    from skd.training.teacher_setup import ensure_teacher

    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_expected_identity(f"teacher {name}", node.id, expect)
    with join_team(device) as team, handle_stop_signals() as should_stop:
        execution = (device, threads, step, precision)
        fast_paths = (compile, compile_steps, kernels)
        options = _run_options(
            team, accumulate, execution, fast_paths, checkpoint_seconds, should_stop, log, log_dir
        )
        options = replace(options, wait=if_leased == "wait")
        store = Store(results)
        if stale and node.spec.kind == "trained":
            team.broadcast(lambda: supersede_stale_runs(expansion, store, teachers=[name]))
        card = ensure_teacher(node, store, options, Resources(workers))
        if team.rank:
            return
    if output:
        write_json(output, card.model_dump(mode="json"))


def train(
    study: StudyArgument,
    pair: PairArgument = None,
    methods: MethodsArgument = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            metavar="SEED", help="train only this seed; may be repeated (default: all of the study)"
        ),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    if_leased: IfLeasedOption = "refuse",
    lanes: LanesOption = None,
    minutes: MinutesOption = None,
    step: StepOption = "fast",
    precision: PrecisionOption = "float32",
    compile: CompileOption = "auto",
    compile_steps: CompileStepsOption = COMPILE_STEPS,
    kernels: KernelsOption = "auto",
    teacher_views: TeacherViewsOption = "auto",
    accumulate: AccumulateOption = 1,
    workers: WorkersOption = None,
    stale: StaleOption = False,
    log: RunLogOption = "none",
    log_dir: RunLogDirOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
    attempt: AttemptOption = 1,
    since: SinceOption = None,
    sharing: SharingOption = 1,
) -> None:
    """Train all runs without a record: those of a study, of a pair, or of some methods.

    Without a pair, the command first trains or imports the study's teachers and stores their
    views if that saves time. It then trains the runs seed by seed, so that all cells of one seed
    finish before the next seed starts.

    A failed run does not stop the others. Exit status: 0 if all runs have a record, 1 if some have
    failed, 75 if --minutes is over, 143 after SIGTERM.

    Several processes train each run of a pair together if torchrun starts this command:
    torchrun --standalone --nproc-per-node 4 -m skd train …
    """
    from skd.training.current_code import snapshot_code

    snapshot_code()
    from skd.training.distributed import join_team
    from skd.training.study_training import StudyTraining, order_runs

    expansion, store = load_expansion(study, results), Store(results)
    cells = select_cells(expansion, pair, methods)
    check_expected_identity(
        f"{pair or study}: {', '.join(methods or ['all methods'])}", cells_digest(cells), expect
    )
    _check_seeds(expansion, seed or [], study)
    runs = order_runs(cells, seed or (), by_seed=pair is None)
    with join_team(device) as team, handle_stop_signals(minutes) as should_stop:
        if pair is None and team.world_size > 1:
            raise StudyError("several processes train the runs of a pair: name a pair")
        execution = (device, threads, step, precision)
        fast_paths = (compile, compile_steps, kernels)
        options = _run_options(
            team, accumulate, execution, fast_paths, checkpoint_seconds, should_stop, log, log_dir
        )
        training = StudyTraining(
            expansion=expansion,
            store=store,
            cells=cells,
            seeds=seed or (),
            options=replace(options, teacher_source=_views_choice(teacher_views), sharing=sharing),
            wait=if_leased == "wait",
            stale=stale,
            attempt=attempt,
            since=since,
            workers=workers,
        )
        failed, not_started = _train(training, runs, lanes, study, whole_study=pair is None)
    if output and not team.rank:
        write_json(output, batch_content(expansion, cells, store))
    if failed:
        if not team.rank:
            print(f"{failed} of {len(runs)} runs {_no_record(not_started)}", file=sys.stderr)
        raise typer.Exit(FAILED)
    if pair is None:
        print(f"all {len(runs)} runs have a record; to write the report: skd-report {study}")


def _run_options(
    team: Team,
    accumulate: int,
    execution: tuple[str, int | None, StepMode, Precision],
    fast_paths: tuple[FastPathMode, int, FastPathMode],
    checkpoint_seconds: float,
    should_stop: Callable[[], bool],
    log: RunLog,
    log_dir: Path | None,
) -> RunOptions:
    """Return the options of runs, after checking that this machine can execute them.

    Args:
        team: the processes that train each run together.
        accumulate: the number of parts of each process's images of a batch.
        execution: the values of --device, --threads, --step and --precision.
        fast_paths: the values of --compile, --compile-steps and --kernels.
        checkpoint_seconds: the longest time between two checkpoints.
        should_stop: returns whether this process is to save and exit.
        log: which log runs write.
        log_dir: the folder for the logs; ``None``: each run's own.
    """
    from skd.training.data_parallel import BatchPartition
    from skd.training.execution import choose_execution
    from skd.training.fast_paths import FastPaths, check_fast_paths
    from skd.training.run_logs import RunLogs
    from skd.training.runs import RunOptions

    options = RunOptions(
        execution=choose_execution(*execution),
        fast_paths=FastPaths(*fast_paths),
        checkpoint_seconds=checkpoint_seconds,
        should_stop=should_stop,
        partition=BatchPartition(team, accumulate),
        logs=RunLogs(log, log_dir),
    )
    options.logs.check()
    check_fast_paths(options.execution, options.fast_paths)
    return options


def _views_choice(source: TeacherSourceChoice) -> TeacherSource | None:
    """Return the choice of --teacher-views as runs have it; ``None`` for auto."""
    return None if source == "auto" else source


def _no_record(not_started: int) -> str:
    if not not_started:
        return "have no record"
    return f"have no record; {not_started} of them were not started because their teacher failed"


def _train(
    training: StudyTraining, runs: list[CellSeed], lanes: int | None, study: str, whole_study: bool
) -> tuple[int, int]:
    """Train some runs of a study, and their teachers if it is a whole study.

    Returns:
        How many runs have no record, and how many of these were not started because their teacher
        failed.
    """
    from skd.store.superseded import print_stale_runs

    team, store = training.team, training.store
    team.broadcast(lambda: training.supersede_stale(with_teachers=whole_study))
    team.broadcast(lambda: print_stale_runs(training.expansion, store, training.cells, study))
    unfinished = team.broadcast(lambda: training.unfinished(runs))
    team.broadcast(lambda: training.remove_leftovers(runs))
    startable, num_unfinished, not_started = runs, len(unfinished), 0
    if whole_study:
        failed_teachers = training.prepare_teachers(unfinished)
        # A teacher may have changed: the runs that learned from its old weights are stale.
        training.supersede_stale(with_teachers=False)
        unfinished = training.unfinished(runs)
        startable = [
            (cell, seed) for cell, seed in unfinished if cell.teacher not in failed_teachers
        ]
        not_started = len(unfinished) - len(startable)
        num_unfinished = len(startable)
    lanes = training.choose_lanes(lanes, num_unfinished, whole_study)
    return not_started + training.train(startable, lanes), not_started


def select_cells(expansion: Expansion, pair: str | None, methods: list[str] | None) -> list[Cell]:
    """Return a study's cells: all, those of a pair, or those of a pair's methods.

    Raises:
        StudyError: the study has no such pair or method.
    """
    if pair is None:
        return list(expansion.cells)
    if methods:
        return [expansion.cell(pair, method) for method in methods]
    if cells := [cell for cell in expansion.cells if cell.pair == pair]:
        return cells
    known = dict.fromkeys(cell.pair for cell in expansion.cells)
    raise StudyError(f"study {expansion.study} has no pair '{pair}'{suggest(pair, known)}")


def _check_seeds(expansion: Expansion, seeds: list[int], study: str) -> None:
    """Check that a study has some seeds.

    Raises:
        StudyError: it does not have one of them; names the allowed seeds.
    """
    if unknown := sorted({*seeds} - {*expansion.seeds}):
        raise StudyError(f"no seed {unknown[0]} in study {study}; allowed: {[*expansion.seeds]}")
