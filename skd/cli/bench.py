"""The command `skd bench`. Torch is imported once it runs, and in the sides' processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks import tables
from benchmarks.case_runner import MeasurementPlan, measurement_groups, run_case
from benchmarks.cases import SideOptions, select_cases
from benchmarks.collect import add_case, add_views_cost
from benchmarks.progress_bar import show_progress
from benchmarks.results import BenchmarkResult, write_benchmark
from benchmarks.side_names import LIVE, MDISTILLER, OURS, PLAIN, SIDES
from benchmarks.time_limit import TimeLimit
from benchmarks.variants import DEFAULT_VARIANT, VARIANTS, train_choice, variant_named
from skd.cli.options import check_writable_option
from skd.common import bounds
from skd.common.errors import FAILED, INTERRUPTED, UnknownNameError
from skd.common.terminal import PlainConsole
from skd.study.expansion import load_expansion

if TYPE_CHECKING:
    from skd.training.execution import Execution

TIMED_STEPS = {"cpu": 10, "cuda": 200}
EVALUATIONS = {"cpu": 1, "cuda": 3}
MAX_TURN_SECONDS = (
    1.0  # of a turn, where there is a bound on the whole: the plain loop's steps are slow
)


def bench(
    study: Annotated[
        str, typer.Argument(help="a study's name, or the path of its sheet")
    ] = "cifar100",
    pair: Annotated[
        list[str] | None,
        typer.Option(help="TEACHER--STUDENT; may be repeated (default: the study's first)"),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="a method of the study; may be repeated (default: all)")
    ] = None,
    side: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(SIDES)}; may be repeated (default: all, {MDISTILLER} if it is "
            f"given, {LIVE} where {OURS} has replaced the teacher's forward pass)"
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help=f"how {OURS} computes its steps: {', '.join(VARIANTS)}; may be repeated (default: "
            f"{DEFAULT_VARIANT}, and what skd train would choose on this device)"
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="rounds, in each of which every side has a turn: A B, B A, …")
    ] = 6,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="steps timed in a turn (default: 10 on a CPU, 200 on a GPU)"),
    ] = None,
    warmup: Annotated[
        int, typer.Option(min=1, help="steps of each side before its first round")
    ] = 5,
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=1, help="evaluations of the test images (default: 1 on a CPU, 3 on a GPU)"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, callback=bounds.check_threads, help="CPU threads of each side (default: torch's)"
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="the whole run takes no longer: turns are shorter and rounds fewer where time is "
            "short (default: no limit)",
        ),
    ] = None,
    lanes: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            callback=bounds.check_lanes,
            help=f"number of {OURS} runs trained side by side; may be repeated (default: 1)",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            callback=bounds.check_workers,
            help="worker processes of the other sides' loaders (default: one a core, 8 at most; "
            "mdistiller 2)",
        ),
    ] = None,
    mdistiller: Annotated[
        Path | None, typer.Option(help="compare with a checkout of mdistiller in this folder")
    ] = None,
    mdistiller_site: Annotated[
        Path | None,
        typer.Option(help="folder with the packages that mdistiller needs and are not here"),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="print how each side was trained, and further numbers")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            callback=check_writable_option,
            help="JSON file (default: RESULTS/bench/DEVICE-DATE.json)",
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="where runs, teachers and reports are kept")] = Path(
        "results"
    ),
) -> None:
    """Compare the speed of our training step with the field's common practice, in turns.

    Each side has a process of its own; while one is timed the others are stopped.
    The variants and numbers of lanes of our side are built one after the other in
    one process, and each takes turns with the plain loop. A side that fails is a
    row with its reason; the exit status is then 1.
    """
    from skd.training.execution import choose_execution

    limit = TimeLimit.of_minutes(minutes)
    for name in variant or ():
        variant_named(name)
    place = choose_execution(device, threads)
    expansion = load_expansion(study, results)
    cases = select_cases(expansion, pair or (), method or ())
    options = SideOptions(
        device=place.device,
        threads=place.threads,
        workers=workers,
        results=results,
        mdistiller=mdistiller,
        mdistiller_site=mdistiller_site,
    )
    usual = [DEFAULT_VARIANT, *(train_choice(place, case.steps) for case in cases)]
    variants, counts = dict.fromkeys(variant or usual), dict.fromkeys(lanes or [None])
    groups = measurement_groups(select_sides(side or (), options), [*variants], [*counts])
    plan = MeasurementPlan(
        rounds=rounds,
        steps=steps or TIMED_STEPS[place.device],
        warmup=warmup,
        evaluations=evaluations or EVALUATIONS[place.device],
        turn_seconds=None if minutes is None else MAX_TURN_SECONDS,
    )
    made = BenchmarkResult(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        study=expansion.study,
        dataset=expansion.dataset,
        round_steps=plan.steps,
        minutes=minutes,
        epochs=expansion.recipe.epochs,
        threads=place.threads,
        **_machine(place),
    )
    path = output or default_path(results, made)
    console = PlainConsole()
    with _ending_on_sigterm(), show_progress(len(cases) * plan.turns(groups)) as bar:
        for number, case in enumerate(cases):
            bar.set_completed(number * plan.turns(groups))
            share = limit.before_closing.share(len(cases) - number)
            measured = run_case(case, groups, plan, bar.tell, limit=share)
            made = add_case(made, case, measured, options, bar, limit)
            write_benchmark(made, path)  # what is measured stays, whatever comes next
        made = add_views_cost(made, cases, options, bar, limit)
    write_benchmark(made, path)
    shown = [*tables.rows_lines(made.rows, long)]
    if made.teacher_views:
        shown += tables.views_lines(made.teacher_views)
    for line in [*shown, "", *tables.comparison_notes(made), f"written to {path}"]:
        console.print(line, soft_wrap=True)
    if made.failures:
        PlainConsole(stderr=True).print(f"failed: {'; '.join(made.failures)}")
        raise typer.Exit(FAILED)


def select_sides(
    names: list[str] | tuple[str, ...], options: SideOptions
) -> dict[str, SideOptions]:
    """Return the sides with their options, in the order of the first round.

    Raises:
        UnknownNameError: no such side; names those there are.
    """
    for name in names:
        if name not in SIDES:
            raise UnknownNameError("side", name, SIDES)
    usual = [OURS, LIVE, PLAIN, *([MDISTILLER] if options.mdistiller else [])]
    chosen = [name for name in SIDES if name in (names or usual)]
    live = options.model_copy(update={"teacher": "live"})
    return {name: live if name == LIVE else options for name in chosen}


def default_path(results: Path, result: BenchmarkResult) -> Path:
    """Return where a comparison is written: by device and time."""
    name = result.device_name
    if result.device == "cpu":
        name += f" {result.threads} threads"
    stamp = re.sub(r"[^0-9T]", "", result.made_at.split("+")[0])
    return results / "bench" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{stamp}.json"


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an error does: the sides' processes end with it."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(INTERRUPTED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _machine(place: Execution) -> dict[str, Any]:
    from skd.training.execution import environment

    known = environment()
    name = known["cpu"] if place.device == "cpu" else known["gpu"]
    return {"environment": known, "device": place.device, "device_name": name or "unknown"}
