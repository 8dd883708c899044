"""`skd job …`: what the workflow's jobs call; and `skd cancel`. No torch but in the workers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skd.errors import SkdError
from skd.files import write_json
from skd.jobs import slurm
from skd.jobs.driver import orphans_of
from skd.jobs.errors import keep_errors
from skd.jobs.gpu import gpu_state
from skd.jobs.packing import runs_side_by_side
from skd.jobs.workers import run_workers, worker
from skd.sheet import StudyError
from skd.status import cell_result
from skd.store import Entry, Store
from skd.study import check_unchanged, digest_of, load_expansion
from skd.training.commands import (
    RESULTS,
    Attempt,
    Expect,
    Methods,
    Output,
    PairName,
    Results,
    Study,
    TeacherName,
)

job = typer.Typer(
    help="Trainings as a job of the workflow: watched, logged, within SLURM's time limit.",
    no_args_is_help=True,
)
Cores = Annotated[int, typer.Option(min=1, help="CPU cores of the job, shared by its runs")]
Log = Annotated[Path | None, typer.Option(help="append what is said to this file")]


def _count(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise SkdError(f"side by side: a number from 1, or auto; got '{text}'")
    return int(text)


SideBySide = Annotated[
    str, typer.Option(help="runs that share the device: a number; auto: as many as fit a GPU")
]


@job.command("train")
def job_train(
    study: Study,
    pair: PairName,
    methods: Methods,
    results: Results = RESULTS,
    cores: Cores = 1,
    side_by_side: SideBySide = "auto",
    attempt: Attempt = 1,
    log: Log = None,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Train every run of some cells of a pair that has no record yet."""
    asked = _count(side_by_side)
    expansion, store = load_expansion(study, results), Store(results)
    cells = [expansion.cell(pair, method) for method in methods]
    check_unchanged(f"{pair}: {', '.join(methods)}", digest_of(cells), expect)
    entries = {
        f"{cell.key} seed {seed}": store.run(identity)
        for cell in cells
        for seed, identity in cell.runs.items()
    }
    left = {label: entry for label, entry in entries.items() if entry.record() is None}
    status = 0
    if left:
        count = runs_side_by_side(asked, len(left), gpu_state(), 2**32, 0.3, attempt)  # TODO
        command = ["train", study, pair, *methods, *_options(results, max(1, cores // count))]
        since = ["--attempt", str(attempt), "--since", str(int(time.time()))]
        status = _run([worker(*command, *since)] * count, left, log)
    if output:
        outcomes = [cell_result(expansion, cell, store).model_dump(mode="json") for cell in cells]
        write_json(output, outcomes)
    raise typer.Exit(status)


@job.command("teacher")
def job_teacher(
    study: Study,
    name: TeacherName,
    results: Results = RESULTS,
    cores: Cores = 1,
    log: Log = None,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Make one teacher of a study ready."""
    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_unchanged(f"teacher {name}", node.id, expect)
    entry = Store(results).teacher(node.id)
    status = 0
    if entry.card() is None:
        command = ["teacher", study, name, *_options(results, cores)]
        status = _run([worker(*command)], {f"teacher {name}": entry}, log)
    card = entry.card()
    if output and card is not None:
        write_json(output, card.model_dump(mode="json"))
    raise typer.Exit(status)


@job.command("errors")
def job_errors(
    study: Study,
    log: Annotated[Path, typer.Argument(help="a log of Snakemake's")],
    results: Results = RESULTS,
) -> None:
    """Keep why a study's jobs failed, where only Snakemake's log tells, for status and report."""
    keep_errors(results, study, log.read_text(errors="replace"))


def cancel(study: Study, results: Results = RESULTS) -> None:
    """Cancel a study's SLURM jobs, which save; for jobs whose Snakemake is gone.

    A living Snakemake is ended with Ctrl-C, and cancels its jobs itself.
    """
    name = load_expansion(study, results).study
    jobs = orphans_of(name, results)
    print(f"{len(jobs)} jobs of study {name} in SLURM's queue: cancelled, saving")
    if left := slurm.cancel(jobs):
        raise StudyError(f"jobs that do not end: {', '.join(job.id for job in left)}")


def _options(results: Path, threads: int) -> list[str]:
    return ["--results", str(results), "--threads", str(threads), "--if-leased", "wait"]


def _run(commands: Sequence[Sequence[str]], entries: dict[str, Entry], log: Path | None) -> int:
    outcome = run_workers(commands, entries, log)
    if outcome.requeued:
        print("this job ends here and is started again by SLURM", file=sys.stderr)
    return outcome.status
