"""The `skd` command. Torch is imported by the commands that need it, not by the others."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from skd.authoring.commands import check_baseline, new_baseline
from skd.errors import InterruptedRunError, RunFailedError, SkdError
from skd.files import write_json
from skd.planning.commands import plan
from skd.sheet import StudyError
from skd.spec import DatasetSpec
from skd.status import cell_result, status_table
from skd.store import Store
from skd.study import load_expansion

if TYPE_CHECKING:
    from skd.training.runs import Options

app = typer.Typer(
    help="Train and compare Student-friendly Knowledge Distillation (SKD) and its baselines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# Exit statuses beside 0.
FAILED, USAGE, INTERRUPTED = 1, 2, 143


class IfLeased(StrEnum):
    """What to do about a run that another process trains."""

    wait = "wait"
    refuse = "refuse"


class Listing(StrEnum):
    """What `skd list` can list."""

    networks = "networks"
    methods = "methods"
    datasets = "datasets"
    studies = "studies"


Study = Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")]
Results = Annotated[Path, typer.Option(help="where runs, teachers and reports are kept")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; by default, as many as torch takes")
]
CheckpointSeconds = Annotated[
    float, typer.Option(min=0, help="at most so long between checkpoints; 0: every epoch")
]
Leased = Annotated[IfLeased, typer.Option(help="if another process trains the run")]
Output = Annotated[Path | None, typer.Option(help="also write the outcome to this file")]
Expect = Annotated[
    str | None, typer.Option(help="refuse if the identity is another: the sheet or code changed")
]
RESULTS = Path("results")


@app.command()
def teacher(
    study: Study,
    name: Annotated[str, typer.Argument(help="the teacher's name in the sheet")],
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    if_leased: Leased = IfLeased.refuse,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Make one teacher of a study ready: train it, or import it, as the sheet says."""
    from skd.training.execution import choose
    from skd.training.teachers import import_teacher, train_teacher

    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    _check_unchanged(f"teacher {name}", node.id, expect)
    entry = Store(results).teacher(node.id)
    if node.spec.kind == "trained":
        with _options(device, threads, checkpoint_seconds, if_leased) as options:
            card = train_teacher(node.spec, entry, options, f"teacher {name}")
    else:
        place = choose(device, threads).apply()
        wait = if_leased is IfLeased.wait
        card = import_teacher(node.spec, node.source, entry, place, wait)
    measured = f"{card.test_top1:.2f} % on the {expansion.dataset.split} images"
    print(f"teacher {name}: {measured}, {entry.folder}")
    if output:
        write_json(output, card.model_dump(mode="json"))


@app.command()
def train(
    study: Study,
    pair: Annotated[
        str, typer.Argument(help="TEACHER--STUDENT, or STUDENT for a method without a teacher")
    ],
    method: Annotated[str, typer.Argument(help="the method's name in the sheet")],
    seed: Annotated[
        list[int] | None, typer.Option(help="only this seed; may be repeated [all of the study]")
    ] = None,
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    if_leased: Leased = IfLeased.refuse,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Train the students of one cell (pair, method): every seed that has no record yet.

    One failed run does not keep the others from being trained; the exit status is then 1.
    """
    from skd.training.runs import complete
    from skd.training.teachers import load_teacher

    expansion, store = load_expansion(study, results), Store(results)
    cell = expansion.cell(pair, method)
    _check_unchanged(cell.key, cell.digest, expect)
    for unknown in set(seed or ()) - set(cell.runs):
        raise StudyError(f"no seed {unknown} in study {study}; allowed: {[*cell.runs]}")
    loader = None
    if cell.teacher is not None:
        teacher_entry = store.teacher(expansion.teacher(cell.teacher).id)
        if teacher_entry.card() is None:
            raise StudyError(f"the teacher is not ready; first: skd teacher {study} {cell.teacher}")
        loader = partial(load_teacher, teacher_entry)
    failures = []
    with _options(device, threads, checkpoint_seconds, if_leased) as options:
        for number, identity in cell.runs.items():
            if seed and number not in seed:
                continue
            label = f"{cell.key} seed {number}"
            try:
                record = complete(cell.run(number), store.run(identity), options, label, loader)
                print(
                    f"{label}: last {record.last.top1:.2f} %, best {record.best.top1:.2f} % "
                    f"(epoch {record.best.epoch}), run {identity}",
                    flush=True,
                )
            except InterruptedRunError:
                raise
            except SkdError as error:  # of this run alone: the others go on
                failures.append(number)
                said = "FAILED" if isinstance(error, RunFailedError) else f"NOT TRAINED {label}:"
                print(f"{said} {error}", file=sys.stderr, flush=True)
    if output:
        write_json(output, cell_result(expansion, cell, store).model_dump(mode="json"))
    if failures:
        print(f"{len(failures)} of {len(cell.runs)} runs have no record", file=sys.stderr)
        raise typer.Exit(FAILED)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint: .pth, .pt or .safetensors")],
    network: Annotated[str, typer.Option(help="see `skd list networks`")],
    dataset: Annotated[str, typer.Option(help="see `skd list datasets`")] = "cifar100",
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Measure a checkpoint on a data set's test images."""
    from skd.data import load as load_images
    from skd.data.views import ViewMaker
    from skd.training.evaluation import Evaluator
    from skd.training.execution import choose
    from skd.training.teachers import build_loaded, read_state_dict

    place = choose(device, threads).apply()
    images = load_images(DatasetSpec(name=dataset))
    weights, what = read_state_dict(checkpoint), f"{checkpoint} for {network}"
    model = build_loaded(network, images.num_classes, weights, what)
    evaluator = Evaluator(images, ViewMaker(images, place))
    scores = evaluator.scores(evaluator.logits(model.to(place)))
    print(
        f"{network} on {dataset}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
        f"cross-entropy {scores.loss:.4f}, {len(evaluator.labels)} test images"
    )


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
    from skd.training.teachers import TeacherError, import_teacher

    if not checkpoint.is_file():
        raise TeacherError(f"the checkpoint {checkpoint} is not there")
    sha256 = sha256_of(checkpoint)
    spec = ImportedTeacher(network=network, dataset=DatasetSpec(name=dataset), sha256=sha256)
    entry = Store(results).teacher(spec.identity)
    source = Import(file=checkpoint, sha256=sha256)
    card = import_teacher(spec, source, entry, choose(device, threads).apply())
    print(f"{network}: {card.test_top1:.2f} % on {dataset}'s test set, {entry.folder}")
    print("In a study sheet:\n\nteachers:")
    print(f"  {network}: {{import: {{file: {checkpoint}, sha256: {sha256}}}}}")


@app.command()
def analyse(study: Study, results: Results = RESULTS) -> None:
    """Measure a study's finished runs from their stored logits: calibration, agreement, …"""
    from skd.analysis import analyse as analyse_runs
    from skd.data import load as load_images

    expansion = load_expansion(study, results)
    labels = load_images(expansion.dataset).test_labels.numpy()
    analysis = analyse_runs(expansion, Store(results), labels)
    path = results / expansion.study / "analysis.json"
    write_json(path, analysis)
    print(f"{len(analysis['runs'])} runs analysed: {path}")
    for identity in analysis["skipped"]:
        print(f"skipped run {identity}: its test logits cannot be read", file=sys.stderr)


@app.command("list")
def list_(what: Annotated[Listing, typer.Argument(help="what to list")]) -> None:
    """List what a study sheet may name."""
    from skd import listing

    Console().print(getattr(listing, what.value)())


@app.command()
def status(study: Study, results: Results = RESULTS) -> None:
    """Show a study's state: what is done, running, failed, left."""
    table, lines = status_table(load_expansion(study, results), Store(results))
    console = Console()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False)


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


app.command("new-baseline")(new_baseline)
app.command("check-baseline")(check_baseline)
app.command("plan")(plan)


def _check_unchanged(what: str, identity: str, expected: str | None) -> None:
    if expected and expected != identity:
        raise StudyError(
            f"{what} is now {identity}, not {expected}: the sheet or the code changed after the "
            "workflow was started; start it again"
        )


@contextlib.contextmanager
def _options(
    device: str, threads: int | None, checkpoint_seconds: float, if_leased: IfLeased
) -> Iterator[Options]:
    """Yield training options; within, SIGTERM and the first Ctrl-C save and leave."""
    from skd.training.execution import choose
    from skd.training.runs import Options

    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        if received:  # a second one does not wait for the save
            raise KeyboardInterrupt
        received.append(number)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield Options(
            execution=choose(device, threads),
            checkpoint_seconds=checkpoint_seconds,
            wait=if_leased is IfLeased.wait,
            stopping=lambda: bool(received),
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main() -> None:
    """Run the command line; errors that have an answer are a line, not a traceback."""
    try:
        app()
    except SkdError as error:
        print(f"skd: {error}", file=sys.stderr)
        statuses = {InterruptedRunError: INTERRUPTED, RunFailedError: FAILED}
        sys.exit(statuses.get(type(error), USAGE))
