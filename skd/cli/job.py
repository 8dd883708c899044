"""The commands `skd job ...`, which the workflow calls.

They start the trainings as processes of their own and import no torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skd.cli.options import (
    DEFAULT_RESULTS,
    AccumulateOption,
    AttemptOption,
    CheckpointSecondsOption,
    CompileOption,
    CoresOption,
    ExpectOption,
    JobRunLogDirOption,
    JobRunLogOption,
    KernelsOption,
    LogOption,
    OutputOption,
    PrecisionOption,
    ProcessesOption,
    RequiredMethodsArgument,
    RequiredPairArgument,
    ResultsOption,
    SideBySideOption,
    StudyArgument,
    TeacherArgument,
    TeacherViewsOption,
    ViewsOutputsOption,
    ViewsPrecisionOption,
)
from skd.cli.results_folder import open_study
from skd.common import bounds
from skd.common.choices import RunLog
from skd.common.errors import FAILED, USAGE, RunFailedError
from skd.common.files import write_json
from skd.common.gpu_state import gpu_state
from skd.common.terminal import printable
from skd.jobs.rule_outputs import batch_content, entries_by_rule_output
from skd.jobs.snakemake_errors import find_job_errors, note_job_error
from skd.jobs.torchrun import torchrun_command
from skd.jobs.workers import run_workers
from skd.planning.local_lanes import choose_lanes
from skd.planning.side_by_side import parse_side_by_side
from skd.store.leftovers import remove_leftovers
from skd.store.store import Store, StoreEntry
from skd.store.teacher_view_files import ViewsFile
from skd.study.expansion import cells_digest, check_expected_identity
from skd.study.expansion_files import load_expansion

job = typer.Typer(
    help="Run trainings as a job of the workflow: with a log, and within SLURM's time limit.",
    no_args_is_help=True,
)


@job.command("train")
def job_train(
    study: StudyArgument,
    pair: RequiredPairArgument,
    methods: RequiredMethodsArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    cores: CoresOption = 1,
    side_by_side: SideBySideOption = "auto",
    processes: ProcessesOption = 1,
    accumulate: AccumulateOption = 1,
    precision: PrecisionOption = "float32",
    compile: CompileOption = "auto",
    kernels: KernelsOption = "auto",
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    teacher_views: TeacherViewsOption = "auto",
    attempt: AttemptOption = 1,
    run_log: JobRunLogOption = "none",
    run_log_dir: JobRunLogDirOption = None,
    log: LogOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Train all runs of a pair's cells that have no record yet."""
    requested = parse_side_by_side(side_by_side)
    bounds.check_lanes(requested)
    expansion, store = load_expansion(study, results), Store(results)
    cells = [expansion.cell(pair, method) for method in methods]
    check_expected_identity(f"{pair}: {', '.join(methods)}", cells_digest(cells), expect)
    entries = {
        f"{cell.key} seed {seed}": store.run(identity)
        for cell in cells
        for seed, identity in cell.runs.items()
    }
    unfinished = {label: entry for label, entry in entries.items() if not entry.is_finished()}
    for entry in entries.values():
        remove_leftovers(entry)
    status = 0
    if unfinished:
        sharing = 1
        if processes == 1:
            sharing = choose_lanes(requested, expansion, cells, store, len(unfinished), attempt)
        # On a GPU, the runs are lanes of one process, which share images and teachers.
        lanes, workers = (sharing, 1) if gpu_state() else (1, sharing)
        threads = max(1, cores // (workers * processes))
        command = [
            *("train", study, pair, *methods),
            *_training_options(results, threads, checkpoint_seconds, accumulate),
            *("--precision", precision, "--compile", compile, "--kernels", kernels),
            *_run_log_options(run_log, run_log_dir),
            *("--lanes", str(lanes), "--teacher-views", teacher_views),
            *("--attempt", str(attempt), "--since", str(int(time.time()))),
            *("--sharing", str(sharing)),
        ]
        status = _run([torchrun_command(command, processes)] * workers, unfinished, log)
        if all(map(StoreEntry.is_finished, unfinished.values())):
            status = 0  # a worker may have been killed, but another one trained its run
        elif not status:
            status = FAILED
    if output and not status:
        write_json(output, batch_content(expansion, cells, store))
    raise typer.Exit(status)


@job.command("teacher")
def job_teacher(
    study: StudyArgument,
    name: TeacherArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    cores: CoresOption = 1,
    processes: ProcessesOption = 1,
    accumulate: AccumulateOption = 1,
    precision: PrecisionOption = "float32",
    compile: CompileOption = "auto",
    kernels: KernelsOption = "auto",
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    attempt: AttemptOption = 1,
    run_log: JobRunLogOption = "none",
    run_log_dir: JobRunLogDirOption = None,
    log: LogOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Train or import one teacher of a study."""
    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_expected_identity(f"teacher {name}", node.id, expect)
    entry = Store(results).teacher(node.id)
    status = 0
    remove_leftovers(entry)
    failure = entry.failure_or_none()
    if entry.card() is None and attempt > 1 and failure is not None and failure.repeats:
        raise RunFailedError(f"teacher {name} would fail again: {failure.reason}")
    if entry.card() is None:
        if node.spec.kind == "imported":
            processes = 1
        threads = max(1, cores // processes)
        command = [
            *("teacher", study, name),
            *_training_options(results, threads, checkpoint_seconds, accumulate),
            *("--precision", precision, "--compile", compile, "--kernels", kernels),
            *_run_log_options(run_log, run_log_dir),
        ]
        status = _run([torchrun_command(command, processes)], {f"teacher {name}": entry}, log)
    card = entry.card()
    if output and card is not None:
        write_json(output, card.model_dump(mode="json"))
    raise typer.Exit(status)


@job.command("teacher-views")
def job_teacher_views(
    study: StudyArgument,
    name: TeacherArgument,
    outputs: ViewsOutputsOption = None,
    precision: ViewsPrecisionOption = "float16",
    results: ResultsOption = DEFAULT_RESULTS,
    cores: CoresOption = 1,
    log: LogOption = None,
    output: OutputOption = None,
) -> None:
    """Store a teacher's outputs on every view of every training image.

    If they cannot be stored, the job succeeds all the same: runs then use the live teacher.
    """
    expansion = load_expansion(study, results)
    entry = Store(results).teacher(expansion.teacher(name).id)
    code = expansion.views_code_of(name)
    kinds = [choice.value for choice in outputs or ()] or ["logits"]
    files = [ViewsFile(entry, expansion.dataset, kind, precision, code) for kind in kinds]
    command = [
        *("teacher-views", study, name, "--results", str(results)),
        *("--threads", str(cores), "--if-leased", "wait"),
        *(option for kind in kinds for option in ("--outputs", kind)),
        *("--precision", precision),
    ]
    status = 0
    if any(file.card() is None for file in files):
        entries = {f"views of {name}": StoreEntry(files[0].folder)}
        status = _run([torchrun_command(command, 1)], entries, log)
    cards = [card.model_dump(mode="json") for file in files if (card := file.card()) is not None]
    if status == USAGE:  # the log has the reason
        print(f"{name}'s views are not stored: its runs use the live teacher", file=sys.stderr)
        status = 0
    if output and not status:
        write_json(output, {"files": cards})
    raise typer.Exit(status)


@job.command("errors")
def job_errors(
    study: StudyArgument,
    log: Annotated[Path, typer.Argument(help="a log file of Snakemake")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write failure notes from Snakemake's log, for failed jobs that left none."""
    expansion, store = open_study(study, results), Store(results)
    outputs = entries_by_rule_output(expansion, store, results)
    for error in find_job_errors(log.read_text(encoding="utf-8", errors="replace")):
        for label, entry in outputs.get(error.output, {}).items():
            if note_job_error(entry, error):
                print(printable(f"{label}: {error.message}"))


def _training_options(
    results: Path, threads: int, checkpoint_seconds: float, accumulate: int
) -> list[str]:
    """Return the options that `skd train` and `skd teacher` share."""
    return [
        *("--results", str(results), "--threads", str(threads)),
        *("--checkpoint-seconds", str(checkpoint_seconds), "--if-leased", "wait"),
        *("--accumulate", str(accumulate)),
    ]


def _run_log_options(run_log: RunLog, run_log_dir: Path | None) -> list[str]:
    """Return the options of `skd train` and `skd teacher` for the logs of runs."""
    folder = ["--log-dir", str(run_log_dir)] if run_log_dir else []
    return ["--log", run_log, *folder] if run_log != "none" else []


def _run(
    commands: Sequence[Sequence[str]], entries: dict[str, StoreEntry], log: Path | None
) -> int:
    """Run worker commands; return the job's exit status."""
    result = run_workers(commands, entries, log)
    if result.requeued:
        print("this job ends now; SLURM starts it again later", file=sys.stderr)
    return result.status
