"""A comparison, grown case by case. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import tables
from benchmarks.cases import Case, Options
from benchmarks.limits import UNLIMITED, TimeLimit
from benchmarks.process import SideError, SideProcess
from benchmarks.progress import Bar
from benchmarks.results import Comparison, Peak, TeacherViews
from benchmarks.rows import precision_of, rows_of, teacher_views, uses_views
from benchmarks.running import Measured
from benchmarks.sides import MEASURE_PEAK, MEASURE_VIEWS


def with_case(
    made: Comparison,
    case: Case,
    measured: Sequence[Measured],
    options: Options,
    bar: Bar,
    limit: TimeLimit = UNLIMITED,
) -> Comparison:
    """Return the comparison with a case's rows, after showing them; measure peaks as needed."""
    peaks = dict(made.peaks)
    for found in measured:
        if found.traceback:
            bar.print(found.traceback)
        name = precision_of(found.how)
        if found.rounds and name not in peaks and not limit.over:
            with SideProcess(MEASURE_PEAK, case, options, limit, precision=name) as process:
                try:
                    peaks[name] = Peak(**process.measure())
                except SideError as error:  # the shares stay open
                    bar.print(f"the peak in {name} could not be measured: {error}")
    rows = rows_of(case, measured, peaks)
    for row in rows:
        bar.print(tables.line(row))
    return made.model_copy(update={"rows": (*made.rows, *rows), "peaks": peaks})


def with_views(
    made: Comparison,
    cases: Sequence[Case],
    options: Options,
    bar: Bar,
    limit: TimeLimit = UNLIMITED,
) -> Comparison:
    """Return the comparison with what the views take, of each teacher that was seen by them.

    Teachers for which there is no time left are left out.
    """
    by_key = {(case.pair, case.method): case for case in cases}
    found: dict[str, TeacherViews] = {}
    for row in filter(uses_views, made.rows):
        if row.teacher in found or limit.over:
            continue
        bar.tell(f"{row.teacher}: building views")
        case = by_key[row.pair, row.method]
        with SideProcess(MEASURE_VIEWS, case, options, limit) as process:
            try:
                measured: dict[str, Any] = process.measure()
            except SideError as error:
                if error.late:
                    continue
                measured = {"failure": str(error)}
        found[row.teacher] = teacher_views(row.teacher, measured, made.rows, made.epochs)
    return made.model_copy(update={"teacher_views": tuple(found.values())})
