"""A comparison, grown case by case. Imports no torch."""

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
    """Return the comparison with a case's rows, after showing them; measure peaks as needed."""
    peaks = dict(result.peaks)
    for found in measured:
        if found.traceback:
            progress.print(found.traceback)
        name = side_precision(found.how)
        if found.rounds and name not in peaks and not limit.over:
            with SideProcess(MEASURE_PEAK, case, options, limit, precision=name) as process:
                try:
                    peaks[name] = HardwarePeak(**process.measure())
                except SideError as error:  # the shares stay open
                    progress.print(f"the peak in {name} could not be measured: {error}")
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
    """Return the comparison with what the views take, of each teacher that was seen by them.

    Teachers for which there is no time left are left out.
    """
    by_key = {(case.pair, case.method): case for case in cases}
    found: dict[str, ViewsCost] = {}
    for row in filter(uses_views, result.rows):
        if row.teacher in found or limit.over:
            continue
        progress.tell(f"{row.teacher}: building views")
        case = by_key[row.pair, row.method]
        with SideProcess(MEASURE_VIEWS, case, options, limit) as process:
            try:
                measured: dict[str, Any] = process.measure()
            except SideError as error:
                if error.time_is_up:
                    continue
                measured = {"failure": str(error)}
        found[row.teacher] = views_cost(row.teacher, measured, result.rows, result.epochs)
    return result.model_copy(update={"teacher_views": tuple(found.values())})
