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

from skd.errors import FAILED, InterruptedRunError, RunFailedError, SkdError
from skd.files import write_json
from skd.lease import LeaseHeldError, LeaseLostError
from skd.sheet import StudyError
from skd.status import cell_result
from skd.store import Store
from skd.study import Cell, Expansion, check_unchanged, digest_of, load_expansion

if TYPE_CHECKING:
    from skd.training.runs import Options


class IfLeased(StrEnum):
    """What to do about a run that another process trains."""

    wait = "wait"
    refuse = "refuse"


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
RESULTS = Path("results")


def teacher(
    study: Study,
    name: TeacherName,
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
    check_unchanged(f"teacher {name}", node.id, expect)
    entry, wait = Store(results).teacher(node.id), if_leased is IfLeased.wait
    if node.spec.kind == "trained":
        with _options(device, threads, checkpoint_seconds) as options:
            card = train_teacher(node.spec, entry, replace(options, wait=wait), f"teacher {name}")
    else:
        place = choose(device, threads).apply()
        card = import_teacher(node.spec, node.source, entry, place, wait)
    measured = f"{card.test_top1:.2f} % on the {expansion.dataset.split} images"
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
    output: Output = None,
    expect: Expect = None,
    attempt: Attempt = 1,
    since: Since = None,
    sharing: Sharing = 1,
) -> None:
    """Train the students of a pair's cells: every seed that has no record yet.

    One failed run does not keep the others from being trained; the exit status is then 1.
    """
    expansion, store = load_expansion(study, results), Store(results)
    cells = [expansion.cell(pair, method) for method in methods]
    check_unchanged(f"{pair}/{'+'.join(methods)}", digest_of(cells), expect)
    for unknown in set(seed or ()) - set(expansion.seeds):
        raise StudyError(f"no seed {unknown} in study {study}; allowed: {[*expansion.seeds]}")
    runs = [(cell, number) for cell in cells for number in cell.runs if not seed or number in seed]
    settled = partial(_settled, store, attempt, since)
    with _options(device, threads, checkpoint_seconds, sharing) as options:
        failures = _train(expansion, store, runs, options, settled, if_leased is IfLeased.wait)
    if output:
        outcomes = [cell_result(expansion, cell, store).model_dump(mode="json") for cell in cells]
        write_json(output, outcomes)
    if failures:
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
    expansion: Expansion,
    store: Store,
    runs: list[tuple[Cell, int]],
    options: Options,
    settled: Callable[[Cell, int], bool],
    wait: bool,
) -> int:
    """Train runs, those that others train last; return how many have no record."""
    failures, held = 0, []
    for cell, seed in runs:
        if settled(cell, seed):
            failures += 1
            print(f"{cell.key} seed {seed}: it would only fail again", file=sys.stderr, flush=True)
            continue
        try:
            failures += not _train_one(expansion, store, cell, seed, options)
        except (LeaseHeldError, LeaseLostError) as error:
            held.append((cell, seed, error))
    for cell, seed, error in held:
        if not wait:
            failures += 1
            print(f"NOT TRAINED {cell.key} seed {seed}: {error}", file=sys.stderr, flush=True)
        elif settled(cell, seed):
            failures += 1
        else:
            failures += not _train_one(expansion, store, cell, seed, replace(options, wait=True))
    return failures


def _train_one(expansion: Expansion, store: Store, cell: Cell, seed: int, options: Options) -> bool:
    """Train one run; return whether it has a record. What fails is told, and is of it alone."""
    from skd.training.runs import complete
    from skd.training.teachers import load_teacher

    label, identity = f"{cell.key} seed {seed}", cell.runs[seed]
    loader = None
    if cell.teacher is not None:
        entry = store.teacher(expansion.teacher(cell.teacher).id)
        if entry.card() is None:
            raise StudyError(
                f"the teacher is not ready; first: skd teacher {expansion.study} {cell.teacher}"
            )
        loader = partial(load_teacher, entry)
    try:
        record = complete(cell.run(seed), store.run(identity), options, label, loader)
    except (InterruptedRunError, LeaseHeldError, LeaseLostError):
        raise
    except (SkdError, OSError) as error:
        said = "FAILED" if isinstance(error, RunFailedError) else f"NOT TRAINED {label}:"
        print(f"{said} {error}", file=sys.stderr, flush=True)
        return False
    print(
        f"{label}: last {record.last.top1:.2f} %, best {record.best.top1:.2f} % "
        f"(epoch {record.best.epoch}), run {identity}",
        flush=True,
    )
    return True


@contextlib.contextmanager
def _options(
    device: str, threads: int | None, checkpoint_seconds: float, sharing: int = 1
) -> Iterator[Options]:
    """Yield training options; within, SIGTERM and the first Ctrl-C save and leave."""
    from skd.training.execution import choose
    from skd.training.runs import Options

    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        # SLURM, Snakemake and `skd job` may each send a SIGTERM: only Ctrl-C twice is impatience.
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield Options(
            execution=choose(device, threads),
            checkpoint_seconds=checkpoint_seconds,
            sharing=sharing,
            stopping=lambda: bool(received),
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
