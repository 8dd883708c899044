"""The `skd` command. Torch is imported by the commands that need it, not by the others."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from skd.cli.accept import accept
from skd.cli.analyse import analyse
from skd.cli.authoring import check_baseline, new_baseline
from skd.cli.bench import bench
from skd.cli.bench_loader import bench_loader
from skd.cli.diff import diff
from skd.cli.error_lines import run_command
from skd.cli.job import job
from skd.cli.options import (
    DEFAULT_RESULTS,
    DeviceOption,
    ResultsOption,
    StudyArgument,
    ThreadsOption,
    check_writable_option,
)
from skd.cli.plan import plan
from skd.cli.provenance import merge, show
from skd.cli.status import cancel, status
from skd.cli.teacher_views import teacher_views
from skd.cli.train import teacher, train
from skd.cli.tune_kernels import tune_kernels
from skd.common.errors import (
    FAILED,
    INTERRUPTED,
    TIME_UP,
    USAGE,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    TimeUpError,
)
from skd.common.terminal import PlainConsole, printable
from skd.store.store import Store
from skd.study.sheet import StudyError, format_validation_error
from skd.study.spec import DatasetSpec

app = typer.Typer(
    help="Train and compare Student-friendly Knowledge Distillation (SKD) and its baselines.",
    rich_markup_mode="markdown",  # paragraphs are filled; brackets in a text stay
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


SpecsFileOption = Annotated[
    Path | None,
    typer.Option(
        callback=check_writable_option,
        help="write the specs to this file instead, and nothing to the results",
    ),
]


class ListTopic(StrEnum):
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
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure a checkpoint on a data set's test images."""
    from skd.data import dataset_facts
    from skd.models import network_family
    from skd.training.execution import choose_execution
    from skd.training.network_loading import build_from_state_dict
    from skd.training.resources import Resources
    from skd.training.state_dicts import read_state_dict

    place, spec = choose_execution(device, threads).apply(), _dataset(dataset)
    # What is wrong with the arguments is said before a data set is downloaded for them.
    classes = dataset_facts(spec).num_classes
    network_family(network)
    weights, what = read_state_dict(checkpoint), f"{checkpoint} for {network}"
    model = build_from_state_dict(network, classes, weights, what)
    evaluator = Resources().data(spec, place).tests
    scores = evaluator.scores(evaluator.logits(model.to(place)))
    print(
        f"{network} on {dataset}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
        f"cross-entropy {scores.loss:.4f}, {len(evaluator.labels)} test images"
    )


def _dataset(name: str) -> DatasetSpec:
    try:
        return DatasetSpec(name=name)
    except ValidationError as error:
        raise StudyError(format_validation_error("--dataset", error)) from error


@app.command("import-teacher")
def import_teacher_command(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint: .pth, .pt or .safetensors")],
    network: Annotated[str, typer.Option(help="see `skd list networks`")],
    dataset: Annotated[str, typer.Option(help="see `skd list datasets`")] = "cifar100",
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    accept_poor: Annotated[
        bool,
        typer.Option("--accept-poor", help="even if its accuracy is below twice the chance level"),
    ] = False,
) -> None:
    """Import a checkpoint as a teacher, and print the lines that a sheet needs to use it.

    It is measured on the test images first, and refused where it is no good.
    """
    from skd.common.files import sha256_of
    from skd.data import dataset_facts
    from skd.models import network_family
    from skd.study.import_lines import check_sheet_path, teacher_sheet_lines
    from skd.study.sheet import ImportSource
    from skd.study.spec import ImportedTeacher
    from skd.training.execution import choose_execution
    from skd.training.network_loading import build_from_state_dict
    from skd.training.state_dicts import read_state_dict
    from skd.training.teacher_setup import check_checkpoint_file, import_teacher, warn_about_teacher

    images = _dataset(dataset)
    classes = dataset_facts(images).num_classes
    network_family(network)
    check_checkpoint_file(checkpoint)
    check_sheet_path(checkpoint)
    # Refused, a checkpoint leaves nothing in the store.
    build_from_state_dict(
        network, classes, read_state_dict(checkpoint), f"{checkpoint} for {network}"
    )
    sha256 = sha256_of(checkpoint)
    spec = ImportedTeacher(network=network, dataset=images, sha256=sha256)
    entry = Store(results).teacher(spec.identity)
    source = ImportSource(file=checkpoint, sha256=sha256, accept_poor=accept_poor)
    card = import_teacher(spec, source, entry, choose_execution(device, threads).apply())
    warn_about_teacher(network, spec, card)
    print(
        f"{network}: {card.test_top1:.2f} % on {dataset}'s test set, {card.origin}, {entry.folder}"
    )
    print(f"In a study sheet:\n\n{teacher_sheet_lines(network, source)}", end="")


@app.command("list")
def list_(what: Annotated[ListTopic, typer.Argument(help="what to list")]) -> None:
    """List what a study sheet may name."""
    from skd.expansion import listing

    PlainConsole().print(getattr(listing, what.value)())


@app.command()
def expand(
    study: StudyArgument, results: ResultsOption = DEFAULT_RESULTS, output: SpecsFileOption = None
) -> None:
    """Validate a study and write its resolved specs to RESULTS/STUDY/specs.json."""
    import torch

    from skd.expansion.expand import expand_study
    from skd.study.expansion import write_expansion

    torch.set_num_threads(1)  # one image through each network: two threads would only wait
    expansion = expand_study(study, results)
    path = write_expansion(expansion, results, output)
    runs = {identity for cell in expansion.cells for identity in cell.runs.values()}
    print(
        f"{expansion.study}: {len(expansion.teachers)} teachers, {len(expansion.cells)} cells, "
        f"{len(runs)} runs: {path}"
    )
    for note in expansion.notes:
        print(printable(f"note: {note}"), file=sys.stderr)


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
app.command()(accept)
app.command()(diff)
app.command()(bench)
app.command("bench-loader")(bench_loader)
app.command("tune-kernels")(tune_kernels)


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    run_command("skd", app, _status)


def _status(error: SkdError) -> int:
    """Return the exit status that says what kind of error it was."""
    kinds = {TimeUpError: TIME_UP, InterruptedRunError: INTERRUPTED, RunFailedError: FAILED}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), USAGE)
