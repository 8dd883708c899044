"""One comparison of the training steps, from its options to its JSON file. Imports no torch."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.case_runner import MeasurementPlan, measurement_groups, run_case
from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.collect import add_case, add_views_cost
from benchmarks.machine import machine
from benchmarks.progress_bar import show_progress
from benchmarks.results import BenchmarkResult, write_benchmark
from benchmarks.side_names import LIVE, MDISTILLER, OURS, PLAIN, SIDES
from benchmarks.time_limit import TimeLimit
from benchmarks.variants import DEFAULT_VARIANT, train_choice
from skd.common.errors import INTERRUPTED, UnknownNameError
from skd.study.expansion import Expansion

if TYPE_CHECKING:
    from skd.training.execution import Execution

TIMED_STEPS = {"cpu": 10, "cuda": 200}
EVALUATIONS = {"cpu": 1, "cuda": 3}
# Longest turn in a comparison with a time limit: the steps of the plain loop are slow.
MAX_TURN_SECONDS = 1.0


def run_benchmark(
    result: BenchmarkResult,
    cases: Sequence[BenchmarkCase],
    groups: Sequence[Mapping[str, SideOptions]],
    plan: MeasurementPlan,
    options: SideOptions,
    limit: TimeLimit,
    path: Path,
) -> BenchmarkResult:
    """Measure all cases; show their progress and write the result to a file after each.

    Args:
        result: the result to which the measurements are added.
        cases: the cells to measure.
        groups: the sides that take turns, group by group; see `measurement_groups`.
        plan: how much is measured of each side.
        options: the options that all sides share.
        limit: when the comparison must be over.
        path: the JSON file.
    """
    with _exit_on_sigterm(), show_progress(len(cases) * plan.turns(groups)) as progress:
        for number, case in enumerate(cases):
            progress.set_completed(number * plan.turns(groups))
            share = limit.before_closing.share(len(cases) - number)
            measured = run_case(case, groups, plan, progress.update, limit=share)
            result = add_case(result, case, measured, options, progress, limit)
            write_benchmark(result, path)  # a later failure does not lose these rows
        result = add_views_cost(result, cases, options, progress, limit)
    write_benchmark(result, path)
    return result


def plan_measurements(
    rounds: int,
    steps: int | None,
    warmup: int,
    evaluations: int | None,
    minutes: float | None,
    device: str,
) -> MeasurementPlan:
    """Return how much to measure; ``None`` for steps or evaluations is the device's default."""
    return MeasurementPlan(
        rounds=rounds,
        steps=steps or TIMED_STEPS[device],
        warmup=warmup,
        evaluations=evaluations or EVALUATIONS[device],
        turn_seconds=None if minutes is None else MAX_TURN_SECONDS,
    )


def select_groups(
    sides: Mapping[str, SideOptions],
    variants: Sequence[str],
    lanes: Sequence[int],
    cases: Sequence[BenchmarkCase],
    execution: Execution,
) -> list[dict[str, SideOptions]]:
    """Return the sides that take turns, group by group.

    Args:
        sides: the sides with their options.
        variants: the variants of our side; empty: the default and what `skd train` would choose.
        lanes: numbers of lanes of our side; empty: its own choice.
        cases: the cells to measure.
        execution: the device and threads.
    """
    usual = [DEFAULT_VARIANT, *(train_choice(execution, case.steps) for case in cases)]
    return measurement_groups(
        sides, [*dict.fromkeys(variants or usual)], [*dict.fromkeys(lanes or [None])]
    )


def select_sides(names: Sequence[str], options: SideOptions) -> dict[str, SideOptions]:
    """Return the sides with their options, in the order of the first round.

    Args:
        names: the sides' names; empty: all that need nothing else than `options` has.
        options: the options that all sides share.

    Raises:
        UnknownNameError: there is no such side; names the allowed ones.
    """
    for name in names:
        if name not in SIDES:
            raise UnknownNameError("side", name, SIDES)
    usual = [OURS, LIVE, PLAIN, *([MDISTILLER] if options.mdistiller else [])]
    chosen = [name for name in SIDES if name in (names or usual)]
    live = options.model_copy(update={"teacher": "live"})
    return {name: live if name == LIVE else options for name in chosen}


def empty_result(
    expansion: Expansion, plan: MeasurementPlan, minutes: float | None, execution: Execution
) -> BenchmarkResult:
    """Return a result without measurements: the study, the plan and this machine."""
    return BenchmarkResult(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        study=expansion.study,
        dataset=expansion.dataset,
        round_steps=plan.steps,
        minutes=minutes,
        epochs=expansion.recipe.epochs,
        threads=execution.threads,
        **machine(execution),
    )


def default_path(results: Path, result: BenchmarkResult) -> Path:
    """Return the file of a result in a results folder, named by device and time."""
    name = result.device_name
    if result.device == "cpu":
        name += f" {result.threads} threads"
    stamp = re.sub(r"[^0-9T]", "", result.made_at.split("+")[0])
    return results / "bench" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{stamp}.json"


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM within the block, so that the sides' processes end too."""

    def exit_now(number: int, frame: object) -> None:
        raise SystemExit(INTERRUPTED)

    before = signal.signal(signal.SIGTERM, exit_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
