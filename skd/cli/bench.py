"""The command `skd bench`. Torch is imported when it runs, and in the sides' processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import tables
from benchmarks.cases import SideOptions, select_cases
from benchmarks.results import BenchmarkResult
from benchmarks.run import (
    default_path,
    empty_result,
    plan_measurements,
    run_benchmark,
    select_groups,
    select_sides,
)
from benchmarks.side_names import LIVE, MDISTILLER, OURS, SIDES
from benchmarks.time_limit import TimeLimit
from benchmarks.variants import DEFAULT_VARIANT, VARIANTS, variant_named
from skd.cli.options import (
    DEFAULT_RESULTS,
    MACHINE,
    OUTPUT,
    DeviceOption,
    ResultsOption,
    StudyArgument,
    ThreadsOption,
    check_writable_option,
)
from skd.common import bounds
from skd.common.errors import FAILED
from skd.common.terminal import PlainConsole
from skd.study.expansion_files import load_expansion

# Headings of groups of options in --help.
COMPARED = "What is compared"
DURATION = "How long it takes"

BenchPairOption = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="PAIR",
        help="a pair to measure, as TEACHER--STUDENT; may be repeated (default: the study's first)",
    ),
]
BenchMethodOption = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="METHOD",
        help="a method of the study to measure; may be repeated (default: all)",
    ),
]
SideOption = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="SIDE",
        help=f"a side to compare: {', '.join(SIDES)}; may be repeated (default: all, {MDISTILLER} "
        f"if --mdistiller names a folder, {LIVE} if {OURS} looks up the teacher's outputs)",
    ),
]
VariantOption = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="VARIANT",
        help=f"how {OURS} computes its steps: {', '.join(VARIANTS)}; may be repeated (default: "
        f"{DEFAULT_VARIANT}, and what skd train would choose on this device)",
    ),
]
RoundsOption = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=DURATION,
        metavar="N",
        help="number of rounds; each side has one turn per round, in the order A B, B A, …",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=DURATION,
        metavar="N",
        help="number of steps that are timed in a turn (default: 10 on a CPU, 200 on a GPU)",
    ),
]
WarmupOption = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=DURATION,
        metavar="N",
        help="number of steps of each side before its first round, which are not timed",
    ),
]
EvaluationsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=DURATION,
        metavar="N",
        help="number of timed evaluations on the test images (default: 1 on a CPU, 3 on a GPU)",
    ),
]
BenchMinutesOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=DURATION,
        metavar="MINUTES",
        help="longest duration of the whole comparison: turns are shorter and rounds fewer if time "
        "is short (default: no limit)",
    ),
]
BenchLanesOption = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        callback=bounds.check_lanes,
        rich_help_panel=COMPARED,
        metavar="N",
        help=f"number of {OURS} runs trained side by side; may be repeated (default: 1)",
    ),
]
BenchWorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=bounds.check_workers,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of worker processes of the other sides' loaders (default: one per core, at "
        "most 8; mdistiller 2)",
    ),
]
CheckoutOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="FOLDER",
        help="compare with the checkout of mdistiller in this folder",
    ),
]
SitePackagesOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=COMPARED,
        metavar="FOLDER",
        help="folder with the packages that mdistiller needs and this environment lacks",
    ),
]
LongOption = Annotated[
    bool,
    typer.Option(
        "--long",
        rich_help_panel=OUTPUT,
        help="also print how each side was trained, and further numbers",
    ),
]
BenchOutputOption = Annotated[
    Path | None,
    typer.Option(
        callback=check_writable_option,
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="write the result to this JSON file (default: RESULTS/bench/DEVICE-DATE.json)",
    ),
]


def bench(
    study: StudyArgument = "cifar100",
    pair: BenchPairOption = None,
    method: BenchMethodOption = None,
    side: SideOption = None,
    variant: VariantOption = None,
    rounds: RoundsOption = 6,
    steps: StepsOption = None,
    warmup: WarmupOption = 5,
    evaluations: EvaluationsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: BenchMinutesOption = None,
    lanes: BenchLanesOption = None,
    workers: BenchWorkersOption = None,
    mdistiller: CheckoutOption = None,
    mdistiller_site: SitePackagesOption = None,
    long: LongOption = False,
    output: BenchOutputOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Compare the speed of our training step with that of the field's common practice.

    Each side runs in its own process, and the sides take turns: while one is timed, the others
    are stopped. The variants and numbers of lanes of our side are built one after the other in
    one process, and each takes turns with the plain loop. If a side fails, its row has the reason
    and the exit status is 1.
    """
    from skd.training.execution import choose_execution

    limit = TimeLimit.of_minutes(minutes)
    for name in variant or ():
        variant_named(name)
    execution = choose_execution(device, threads)
    expansion = load_expansion(study, results)
    cases = select_cases(expansion, pair or (), method or ())
    options = SideOptions(
        device=execution.device,
        threads=execution.threads,
        workers=workers,
        results=results,
        mdistiller=mdistiller,
        mdistiller_site=mdistiller_site,
    )
    sides = select_sides(side or (), options)
    groups = select_groups(sides, variant or (), lanes or (), cases, execution)
    plan = plan_measurements(rounds, steps, warmup, evaluations, minutes, execution.device)
    result = empty_result(expansion, plan, minutes, execution)
    path = output or default_path(results, result)
    result = run_benchmark(result, cases, groups, plan, options, limit, path)
    _print_result(result, long, path)
    if result.failures:
        raise typer.Exit(FAILED)


def _print_result(result: BenchmarkResult, long: bool, path: Path) -> None:
    """Print a result's tables and notes, and on standard error the sides that failed."""
    lines = [*tables.rows_lines(result.rows, long)]
    if result.teacher_views:
        lines += tables.views_lines(result.teacher_views)
    console = PlainConsole()
    for line in [*lines, "", *tables.comparison_notes(result), f"written to {path}"]:
        console.print(line, soft_wrap=True)
    if result.failures:
        PlainConsole(stderr=True).print(f"failed: {'; '.join(result.failures)}")
