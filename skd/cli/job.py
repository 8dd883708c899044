"""`skd job …`: what the workflow calls. Imports no torch, which is the workers'."""

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
    ExpectOption,
    KernelsOption,
    OutputOption,
    Precision,
    PrecisionKind,
    ResultsOption,
    StudyArgument,
    TeacherArgument,
    TeacherKind,
    TeacherViewsOption,
    When,
)
from skd.cli.results_folder import open_study
from skd.cli.teacher_views import (
    StoredPrecision,
    ViewsOutputChoice,
    ViewsOutputsOption,
    ViewsPrecisionOption,
)
from skd.common import bounds
from skd.common.errors import FAILED, USAGE, RunFailedError
from skd.common.files import write_json
from skd.common.gpu_state import gpu_state
from skd.common.terminal import printable
from skd.jobs.rule_outputs import batch_content
from skd.jobs.snakemake_errors import find_job_errors, note_job_error
from skd.jobs.torchrun import torchrun_command
from skd.jobs.workers import run_workers
from skd.planning.batches import entries_by_rule_output
from skd.planning.local_lanes import choose_lanes
from skd.planning.side_by_side import SideBySideOption, parse_side_by_side
from skd.store.leftovers import remove_leftovers
from skd.store.store import Store, StoreEntry
from skd.store.teacher_view_files import ViewsFile
from skd.study.expansion import cells_digest, check_expected_identity, load_expansion

job = typer.Typer(
    help="Trainings as a job of the workflow: watched, logged, within SLURM's time limit.",
    no_args_is_help=True,
)
JobPairArgument = Annotated[
    str, typer.Argument(help="TEACHER--STUDENT, or STUDENT for methods without a teacher")
]
JobMethodsArgument = Annotated[list[str], typer.Argument(help="the methods' names in the sheet")]
CoresOption = Annotated[
    int,
    typer.Option(
        min=1, callback=bounds.check_threads, help="CPU cores of the job, which its runs share"
    ),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        min=1,
        callback=bounds.check_processes,
        help="processes that train each run together, each on a GPU of its own",
    ),
]
LogOption = Annotated[
    Path | None, typer.Option(help="append what is said to this file, and to its .history.log")
]


@job.command("train")
def job_train(
    study: StudyArgument,
    pair: JobPairArgument,
    methods: JobMethodsArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    cores: CoresOption = 1,
    side_by_side: SideBySideOption = "auto",
    processes: ProcessesOption = 1,
    accumulate: AccumulateOption = 1,
    precision: PrecisionKind = Precision.float32,
    compile: CompileOption = When.auto,
    kernels: KernelsOption = When.auto,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    teacher_views: TeacherViewsOption = TeacherKind.auto,
    attempt: AttemptOption = 1,
    log: LogOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Train every run of some cells of a pair that has no record yet."""
    asked = parse_side_by_side(side_by_side)
    bounds.check_lanes(asked)
    expansion, store = load_expansion(study, results), Store(results)
    cells = [expansion.cell(pair, method) for method in methods]
    check_expected_identity(f"{pair}: {', '.join(methods)}", cells_digest(cells), expect)
    entries = {
        f"{cell.key} seed {seed}": store.run(identity)
        for cell in cells
        for seed, identity in cell.runs.items()
    }
    left = {label: entry for label, entry in entries.items() if not entry.finished()}
    status = 0
    for entry in entries.values():
        remove_leftovers(entry)
    if left:
        sharing = 1
        if processes == 1:
            sharing = choose_lanes(asked, expansion, cells, store, len(left), attempt)
        # On a GPU they are lanes of one process, which share images and teachers.
        lanes, workers = (sharing, 1) if gpu_state() else (1, sharing)
        threads = max(1, cores // (workers * processes))
        how = _options(results, threads, checkpoint_seconds, accumulate, precision)
        options = [*how, "--compile", compile.value, "--kernels", kernels.value]
        options += ["--lanes", str(lanes), "--teacher-views", teacher_views.value]
        options += ["--attempt", str(attempt), "--since", str(int(time.time()))]
        command = ["train", study, pair, *methods, *options, "--sharing", str(sharing)]
        status = _run([torchrun_command(command, processes)] * workers, left, log)
        if all(map(StoreEntry.finished, left.values())):
            status = 0  # whoever was killed, another one has done it
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
    precision: PrecisionKind = Precision.float32,
    compile: CompileOption = When.auto,
    kernels: KernelsOption = When.auto,
    checkpoint_seconds: CheckpointSecondsOption = 60.0,
    attempt: AttemptOption = 1,
    log: LogOption = None,
    output: OutputOption = None,
    expect: ExpectOption = None,
) -> None:
    """Make one teacher of a study ready."""
    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_expected_identity(f"teacher {name}", node.id, expect)
    entry = Store(results).teacher(node.id)
    status = 0
    remove_leftovers(entry)
    failure = entry.failure_or_none()
    if entry.card() is None and attempt > 1 and failure is not None and failure.repeats:
        raise RunFailedError(f"teacher {name} would only fail again: {failure.reason}")
    if entry.card() is None:
        if node.spec.kind == "imported":
            processes = 1
        threads = max(1, cores // processes)
        how = _options(results, threads, checkpoint_seconds, accumulate, precision)
        options = [*how, "--compile", compile.value, "--kernels", kernels.value]
        command = torchrun_command(["teacher", study, name, *options], processes)
        status = _run([command], {f"teacher {name}": entry}, log)
    card = entry.card()
    if output and card is not None:
        write_json(output, card.model_dump(mode="json"))
    raise typer.Exit(status)


@job.command("teacher-views")
def job_teacher_views(
    study: StudyArgument,
    name: TeacherArgument,
    outputs: ViewsOutputsOption = None,
    precision: ViewsPrecisionOption = StoredPrecision.float16,
    results: ResultsOption = DEFAULT_RESULTS,
    cores: CoresOption = 1,
    log: LogOption = None,
    output: OutputOption = None,
) -> None:
    """Store a teacher's outputs on every view; where that cannot be, its runs ask it live."""
    expansion = load_expansion(study, results)
    entry = Store(results).teacher(expansion.teacher(name).id)
    wanted = [chosen.value for chosen in outputs or [ViewsOutputChoice.logits]]
    code = expansion.views_code_of(name)
    files = [ViewsFile(entry, expansion.dataset, kind, precision.value, code) for kind in wanted]
    options = [*("--results", str(results), "--threads", str(cores), "--if-leased", "wait")]
    options += [option for kind in wanted for option in ("--outputs", kind)]
    options += ["--precision", precision.value]
    command = torchrun_command(["teacher-views", study, name, *options], 1)
    status = 0
    if any(file.card() is None for file in files):
        status = _run([command], {f"views of {name}": StoreEntry(files[0].folder)}, log)
    cards = [card.model_dump(mode="json") for file in files if (card := file.card()) is not None]
    if status == USAGE:  # refused with a reason, which the log has
        print(f"{name}'s views are not stored: its runs will ask it live", file=sys.stderr)
        status = 0
    if output and not status:
        write_json(output, {"files": cards})
    raise typer.Exit(status)


@job.command("errors")
def job_errors(
    study: StudyArgument,
    log: Annotated[Path, typer.Argument(help="a log of Snakemake's")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Leave failure notes for jobs that ended without a word, from what Snakemake's log says."""
    expansion, store = open_study(study, results), Store(results)
    outputs = entries_by_rule_output(expansion, store, results)
    for error in find_job_errors(log.read_text(encoding="utf-8", errors="replace")):
        for label, entry in outputs.get(error.output, {}).items():
            if note_job_error(entry, error):
                print(printable(f"{label}: {error.message}"))


def _options(
    results: Path, threads: int, checkpoint_seconds: float, accumulate: int, precision: Precision
) -> list[str]:
    return [
        *("--results", str(results), "--threads", str(threads)),
        *("--checkpoint-seconds", str(checkpoint_seconds), "--if-leased", "wait"),
        *("--accumulate", str(accumulate), "--precision", precision.value),
    ]


def _run(
    commands: Sequence[Sequence[str]], entries: dict[str, StoreEntry], log: Path | None
) -> int:
    outcome = run_workers(commands, entries, log)
    if outcome.requeued:
        print("this job ends here and is started again by SLURM", file=sys.stderr)
    return outcome.status
