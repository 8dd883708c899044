"""Adds measurements to a benchmark's result, case by case. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import tables
from benchmarks.case_runner import SideMeasurement
from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.progress_bar import BenchmarkProgress
from benchmarks.result_rows import benchmark_rows, side_precision, uses_views, views_cost
from benchmarks.results import BenchmarkResult, HardwarePeak, ViewsCost
from benchmarks.side_names import MEASURE_PEAK, MEASURE_VIEWS
from benchmarks.side_process import SideError, SideProcess
from benchmarks.time_limit import UNLIMITED, TimeLimit


def add_case(
    result: BenchmarkResult,
    case: BenchmarkCase,
    measured: Sequence[SideMeasurement],
    options: SideOptions,
    progress: BenchmarkProgress,
    limit: TimeLimit = UNLIMITED,
) -> BenchmarkResult:
    """Print a case's rows and return the result with them; measure missing hardware peaks."""
    peaks = dict(result.peaks)
    for measurement in measured:
        if measurement.traceback:
            progress.print(measurement.traceback)
        precision = side_precision(measurement.how)
        if measurement.rounds and precision not in peaks and not limit.is_over:
            with SideProcess(MEASURE_PEAK, case, options, limit, precision=precision) as process:
                try:
                    peaks[precision] = HardwarePeak(**process.call_function())
                except SideError as error:  # the rows then have no share of the peak
                    progress.print(f"the peak in {precision} could not be measured: {error}")
    rows = benchmark_rows(case, measured, peaks)
    for row in rows:
        progress.print(tables.row_line(row))
    return result.model_copy(update={"rows": (*result.rows, *rows), "peaks": peaks})


def add_views_cost(
    result: BenchmarkResult,
    cases: Sequence[BenchmarkCase],
    options: SideOptions,
    progress: BenchmarkProgress,
    limit: TimeLimit = UNLIMITED,
) -> BenchmarkResult:
    """Return the result with the cost of views for each teacher whose stored views were used.

    Teachers are omitted if the time is up.
    """
    by_key = {(case.pair, case.method): case for case in cases}
    costs: dict[str, ViewsCost] = {}
    for row in filter(uses_views, result.rows):
        if row.teacher in costs or limit.is_over:
            continue
        progress.update(f"{row.teacher}: building views")
        case = by_key[row.pair, row.method]
        with SideProcess(MEASURE_VIEWS, case, options, limit) as process:
            try:
                measured: dict[str, Any] = process.call_function()
            except SideError as error:
                if error.time_is_up:
                    continue
                measured = {"failure": str(error)}
        costs[row.teacher] = views_cost(row.teacher, measured, result.rows, result.epochs)
    return result.model_copy(update={"teacher_views": tuple(costs.values())})
