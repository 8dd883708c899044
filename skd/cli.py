"""The `skd` command. Torch is imported by the commands that need it, not by the others."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from report.commands import diff
from skd.analyses.commands import analyse
from skd.authoring.commands import check_baseline, new_baseline
from skd.bench.commands import bench
from skd.bench.loader_command import bench_loader
from skd.errors import (
    FAILED,
    INTERRUPTED,
    TIME_UP,
    UNWRITABLE,
    USAGE,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    TimeUpError,
    described,
    show_warnings_as_lines,
)
from skd.jobs.commands import job
from skd.jobs.watching import cancel, status
from skd.kernels.command import tune_kernels
from skd.planning.commands import plan
from skd.provenance.commands import merge, show
from skd.sheet import StudyError, explain
from skd.spec import DatasetSpec
from skd.store import Store
from skd.training.commands import teacher, train
from skd.training.options import RESULTS, Device, Results, Study, Threads
from skd.training.views_command import teacher_views

app = typer.Typer(
    help="Train and compare Student-friendly Knowledge Distillation (SKD) and its baselines.",
    rich_markup_mode="markdown",  # paragraphs are filled; brackets in a text stay
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class Listing(StrEnum):
    """What `skd list` can list."""

    networks = "networks"
    methods = "methods"
    datasets = "datasets"
    studies = "studies"


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint: .pth, .pt or .safetensors")],
    network: Annotated[str, typer.Option(help="see `skd list networks`")],
    dataset: Annotated[str, typer.Option(help="see `skd list datasets`")] = "cifar100",
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Measure a checkpoint on a data set's test images."""
    from skd.training.execution import choose
    from skd.training.materials import Materials
    from skd.training.weights import build_loaded, read_state_dict

    place = choose(device, threads).apply()
    material = Materials().data(_dataset(dataset), place)
    weights, what = read_state_dict(checkpoint), f"{checkpoint} for {network}"
    model = build_loaded(network, material.images.num_classes, weights, what)
    evaluator = material.tests
    scores = evaluator.scores(evaluator.logits(model.to(place)))
    print(
        f"{network} on {dataset}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
        f"cross-entropy {scores.loss:.4f}, {len(evaluator.labels)} test images"
    )


def _dataset(name: str) -> DatasetSpec:
    try:
        return DatasetSpec(name=name)
    except ValidationError as error:
        raise StudyError(explain("--dataset", error)) from error


@app.command("import-teacher")
def import_teacher_command(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint: .pth, .pt or .safetensors")],
    network: Annotated[str, typer.Option(help="see `skd list networks`")],
    dataset: Annotated[str, typer.Option(help="see `skd list datasets`")] = "cifar100",
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Import a checkpoint as a teacher, and print the lines that a sheet needs to use it."""
    from skd.files import sha256_of
    from skd.sheet import Import
    from skd.spec import ImportedTeacher
    from skd.training.execution import choose
    from skd.training.teachers import import_teacher
    from skd.training.weights import TeacherError

    if not checkpoint.is_file():
        raise TeacherError(f"the checkpoint {checkpoint} is not there")
    sha256 = sha256_of(checkpoint)
    spec = ImportedTeacher(network=network, dataset=_dataset(dataset), sha256=sha256)
    entry = Store(results).teacher(spec.identity)
    source = Import(file=checkpoint, sha256=sha256)
    card = import_teacher(spec, source, entry, choose(device, threads).apply())
    print(f"{network}: {card.test_top1:.2f} % on {dataset}'s test set, {entry.folder}")
    print("In a study sheet:\n\nteachers:")
    print(f"  {network}: {{import: {{file: {checkpoint}, sha256: {sha256}}}}}")


@app.command("list")
def list_(what: Annotated[Listing, typer.Argument(help="what to list")]) -> None:
    """List what a study sheet may name."""
    from skd import listing

    Console().print(getattr(listing, what.value)())


@app.command()
def expand(study: Study, results: Results = RESULTS) -> None:
    """Validate a study and write its resolved specs to RESULTS/STUDY/specs.json."""
    import torch

    from skd.expand import expand_study
    from skd.study import write_expansion

    torch.set_num_threads(1)  # one image through each network: two threads would only wait
    expansion = expand_study(study, results)
    path = write_expansion(expansion, results)
    runs = {identity for cell in expansion.cells for identity in cell.runs.values()}
    print(
        f"{expansion.study}: {len(expansion.teachers)} teachers, {len(expansion.cells)} cells, "
        f"{len(runs)} runs: {path}"
    )


app.command()(teacher)
app.command()(train)
app.command("teacher-views")(teacher_views)
app.command()(analyse)
app.command()(status)
app.command()(cancel)
app.add_typer(job, name="job")
app.command("new-baseline")(new_baseline)
app.command("check-baseline")(check_baseline)
app.command("plan")(plan)
app.command()(show)
app.command()(merge)
app.command()(diff)
app.command()(bench)
app.command("bench-loader")(bench_loader)
app.command("tune-kernels")(tune_kernels)


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    show_warnings_as_lines("skd")
    try:
        app()
    except SkdError as error:
        print(f"skd: {error}", file=sys.stderr)
        sys.exit(_status(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"skd: {described(error)}", file=sys.stderr)
        sys.exit(FAILED)


def _status(error: SkdError) -> int:
    """Return the exit status that says what kind of error it was."""
    kinds = {TimeUpError: TIME_UP, InterruptedRunError: INTERRUPTED, RunFailedError: FAILED}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), USAGE)
