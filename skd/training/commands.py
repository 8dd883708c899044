"""`skd train` and `skd teacher`: trainings in this process. Torch is imported once they run."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skd.errors import (
    FAILED,
    DeviceFailedError,
    InterruptedRunError,
    RunFailedError,
    SkdError,
)
from skd.files import write_json
from skd.lease import LeaseHeldError, LeaseLostError
from skd.sheet import StudyError
from skd.status import cell_result
from skd.store import Store
from skd.study import Cell, Expansion, check_unchanged, digest_of, load_expansion

if TYPE_CHECKING:
    from skd.training.materials import Materials
    from skd.training.runs import Options


class IfLeased(StrEnum):
    """What to do about a run that another process trains."""

    wait = "wait"
    refuse = "refuse"


class Step(StrEnum):
    """How a step is computed: `skd.training.execution`."""

    fast = "fast"
    plain = "plain"


class Precision(StrEnum):
    """Of forward passes and losses."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class TeacherKind(StrEnum):
    """Where a teacher's outputs come from."""

    auto = "auto"
    live = "live"
    float16 = "float16"
    float32 = "float32"


Study = Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")]
TeacherName = Annotated[str, typer.Argument(help="the teacher's name in the sheet")]
PairName = Annotated[
    str, typer.Argument(help="TEACHER--STUDENT, or STUDENT for a method without a teacher")
]
Methods = Annotated[list[str], typer.Argument(help="the methods' names in the sheet")]
Results = Annotated[Path, typer.Option(help="where runs, teachers and reports are kept")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; by default, as many as torch takes")
]
CheckpointSeconds = Annotated[
    float, typer.Option(min=0, help="at most so long between checkpoints; 0: every epoch")
]
Leased = Annotated[
    IfLeased, typer.Option(help="if another process trains a run: train the others, then wait")
]
Output = Annotated[Path | None, typer.Option(help="also write the outcome to this file")]
Expect = Annotated[
    str | None, typer.Option(help="refuse if the identity is another: the sheet or code changed")
]
Attempt = Annotated[
    int, typer.Option(min=1, help="from 2: a run that would only fail again is left alone")
]
Since = Annotated[
    float | None,
    typer.Option(hidden=True, help="runs that failed since are left alone; seconds since 1970"),
]
Sharing = Annotated[
    int, typer.Option(hidden=True, min=1, help="trainings that share the device, for the record")
]
Lanes = Annotated[
    int, typer.Option(min=1, help="runs side by side in this process; of use on a GPU")
]
StepKind = Annotated[
    Step, typer.Option(help="fast, or the plain loop; of runs that are begun now, as the next two")
]
PrecisionKind = Annotated[Precision, typer.Option(help="bfloat16: autocast, not validated yet")]
Accumulate = Annotated[
    int,
    typer.Option(min=1, help="parts that a process's images of a batch are seen in, one by one"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="processes that decode photos; by default one a core on a GPU, else 0"
    ),
]
TeacherFrom = Annotated[
    TeacherKind,
    typer.Option(help="the teacher's outputs; auto: its stored views, if there are any"),
]
RESULTS = Path("results")


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
    accumulate: Accumulate = 1,
    workers: Workers = None,
    output: Output = None,
    expect: Expect = None,
) -> None:
    """Make one teacher of a study ready: train it, or import it, as the sheet says.

    Several processes train it together where torchrun starts this.
    """
    from skd.training.division import Division
    from skd.training.execution import choose
    from skd.training.materials import Materials
    from skd.training.processes import team
    from skd.training.runs import Options
    from skd.training.teachers import import_teacher, train_teacher

    expansion = load_expansion(study, results)
    node = expansion.teacher(name)
    check_unchanged(f"teacher {name}", node.id, expect)
    entry, wait = Store(results).teacher(node.id), if_leased is IfLeased.wait
    with team(device) as processes, stoppable() as stopping:
        materials = Materials(workers)
        if node.spec.kind == "trained":
            options = Options(
                execution=choose(device, threads, step.value, precision.value),
                checkpoint_seconds=checkpoint_seconds,
                wait=wait,
                stopping=stopping,
                division=Division(processes, accumulate),
            )
            card = train_teacher(node.spec, entry, options, f"teacher {name}", materials)
        else:
            place = choose(device, threads).apply()
            card = processes.told(
                lambda: import_teacher(node.spec, node.source, entry, place, wait, materials)
            )
        if processes.rank:
            return
    measured = f"{card.test_top1:.2f} % on the {node.spec.dataset.split} images"
    print(f"teacher {name}: {measured}, {entry.folder}")
    if output:
        write_json(output, card.model_dump(mode="json"))


def train(
    study: Study,
    pair: PairName,
    methods: Methods,
    seed: Annotated[
        list[int] | None, typer.Option(help="only this seed; may be repeated [all of the study]")
    ] = None,
    results: Results = RESULTS,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    if_leased: Leased = IfLeased.refuse,
    lanes: Lanes = 1,
    step: StepKind = Step.fast,
    precision: PrecisionKind = Precision.float32,
    teacher_views: TeacherFrom = TeacherKind.auto,
    accumulate: Accumulate = 1,
    workers: Workers = None,
    output: Output = None,
    expect: Expect = None,
    attempt: Attempt = 1,
    since: Since = None,
    sharing: Sharing = 1,
) -> None:
    """Train the students of a pair's cells: every seed that has no record yet.

    One failed run does not keep the others from being trained; the exit status is then 1. Several
    processes train each run together where torchrun starts this:
    torchrun --standalone --nproc-per-node 4 -m skd train …
    """
    from skd.training.division import Division
    from skd.training.execution import choose
    from skd.training.materials import Materials
    from skd.training.processes import team
    from skd.training.runs import Options

    expansion, store = load_expansion(study, results), Store(results)
    cells = [expansion.cell(pair, method) for method in methods]
    check_unchanged(f"{pair}/{'+'.join(methods)}", digest_of(cells), expect)
    for unknown in set(seed or ()) - set(expansion.seeds):
        raise StudyError(f"no seed {unknown} in study {study}; allowed: {[*expansion.seeds]}")
    runs = [(cell, number) for cell in cells for number in cell.runs if not seed or number in seed]
    with team(device) as processes, stoppable() as stopping:
        lanes = min(lanes, len(runs)) if processes.count == 1 else 1

        def settled(cell: Cell, number: int) -> bool:
            return processes.told(lambda: _settled(store, attempt, since, cell, number))

        options = Options(
            execution=choose(device, threads, step.value, precision.value),
            teacher=None if teacher_views is TeacherKind.auto else teacher_views.value,
            checkpoint_seconds=checkpoint_seconds,
            sharing=max(sharing, lanes),
            stopping=stopping,
            division=Division(processes, accumulate),
        )
        train_one = partial(_train_one, expansion, store, Materials(workers, lanes))
        failures = _train(runs, train_one, options, settled, if_leased is IfLeased.wait, lanes)
    if output and not processes.rank:
        outcomes = [cell_result(expansion, cell, store).model_dump(mode="json") for cell in cells]
        write_json(output, outcomes)
    if failures:
        if not processes.rank:
            print(f"{failures} of {len(runs)} runs have no record", file=sys.stderr)
        raise typer.Exit(FAILED)


def _settled(store: Store, attempt: int, since: float | None, cell: Cell, seed: int) -> bool:
    """Whether a run has failed for good, as far as this job goes."""
    failure = store.run(cell.runs[seed]).failure()
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
            print(f"NOT TRAINED {cell.key} seed {seed}: {error}", file=sys.stderr, flush=True)
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
            print(f"{said} {error}", file=sys.stderr, flush=True)
        return False
    if options.division.team.rank:
        return True
    print(
        f"{label}: last {record.last.top1:.2f} %, best {record.best.top1:.2f} % "
        f"(epoch {record.best.epoch}), run {identity}",
        flush=True,
    )
    return True


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM and the first Ctrl-C ask to stop; yields what says whether they did."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        # SLURM, Snakemake and `skd job` may each send a SIGTERM: only Ctrl-C twice is impatience.
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
