"""The rows of a benchmark's result, from the measurements. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks import arithmetic
from benchmarks.case_runner import TIME_IS_UP, SideMeasurement
from benchmarks.cases import BenchmarkCase
from benchmarks.results import BenchmarkRow, HardwarePeak, SpeedUp, ViewsCost
from benchmarks.side_names import LIVE, OURS, SIDES

DEFAULT_PRECISION = "float32"  # of a side that does not describe its precision


def side_precision(how: Mapping[str, Any]) -> str:
    """Return the precision that a side computes in."""
    return how.get("precision", DEFAULT_PRECISION)


def benchmark_rows(
    case: BenchmarkCase, measured: Sequence[SideMeasurement], peaks: Mapping[str, HardwarePeak]
) -> list[BenchmarkRow]:
    """Return a case's rows, one for each measurement, in the order of `SIDES`.

    Args:
        case: the measured case.
        measured: the measurements of its sides, ours once for each variant and number of lanes.
        peaks: the hardware's peak by precision. Without one, the share of the peak is ``None``.
    """
    ordered = sorted(measured, key=lambda measurement: SIDES.index(measurement.side))
    return [_row(case, measurement, peaks) for measurement in ordered]


def _row(
    case: BenchmarkCase, measurement: SideMeasurement, peaks: Mapping[str, HardwarePeak]
) -> BenchmarkRow:
    row = {
        "pair": case.pair,
        "method": case.method,
        "teacher": case.teacher,
        "student": case.spec.network,
        "side": measurement.side,
        "variant": measurement.variant,
        "lanes": measurement.how.get("lanes") or measurement.lanes or 1,
        "how": measurement.how,
        "batch_size": case.batch_size,
        "steps_per_epoch": case.steps_per_epoch,
    }
    if measurement.failure is not None:
        return BenchmarkRow(**row, failure=measurement.failure, unfit=measurement.unfit)
    if measurement.skipped:
        return BenchmarkRow(**row, failure=TIME_IS_UP, skipped=True)
    lanes, steps = row["lanes"], case.steps_per_epoch
    seconds = median(measurement.rounds)
    work = lanes * _multiply_adds(case, measurement.how)
    peak = peaks.get(side_precision(measurement.how))
    return BenchmarkRow(
        **row,
        **_with_evaluation(measurement, steps, seconds, lanes),
        rounds=tuple(measurement.rounds),
        plain_rounds=tuple(measurement.plain_rounds),
        seconds_per_step=seconds,
        images_per_second=arithmetic.images_per_second(case.batch_size, lanes, seconds),
        peak_memory_bytes=measurement.peak_memory_bytes,
        multiply_adds=work,
        share_of_peak=(
            arithmetic.share_of_peak(work, seconds, peak.multiply_adds_per_second) if peak else None
        ),
        speed_up=_speed_up(measurement, lanes),
    )


def _with_evaluation(
    measurement: SideMeasurement, steps: int, seconds: float, lanes: int
) -> dict[str, Any]:
    if not measurement.evaluations:  # time was up
        return {}
    evaluation = median(measurement.evaluations)
    return {
        "evaluations": tuple(measurement.evaluations),
        "evaluation_seconds": evaluation,
        "evaluation_share": arithmetic.evaluation_share(steps, seconds, evaluation),
        "seconds_per_epoch": arithmetic.seconds_per_epoch(steps, seconds, evaluation, lanes),
    }


def _multiply_adds(case: BenchmarkCase, how: Mapping[str, Any]) -> int:
    live = case.teacher_facts is not None and how.get("teacher") == "live"
    return arithmetic.step_multiply_adds(
        student=case.student_facts.multiply_adds,
        extra=case.extra.multiply_adds,
        live_teacher=case.teacher_facts.multiply_adds if live else 0,
        batch_size=case.batch_size,
    )


def _speed_up(measurement: SideMeasurement, lanes: int) -> SpeedUp | None:
    """Return the speed-up of a step of one run; ``None`` unless plain was in every round."""
    if len(measurement.plain_rounds) != len(measurement.rounds):
        return None
    per_run = [seconds / lanes for seconds in measurement.rounds]
    return arithmetic.paired_ratio(measurement.plain_rounds, per_run)


def uses_views(row: BenchmarkRow) -> bool:
    """Whether a row is of our side with stored teacher outputs."""
    return row.side == OURS and not row.failure and row.how.get("teacher") == "views"


def views_cost(
    teacher: str, measured: Mapping[str, Any], rows: Sequence[BenchmarkRow], epochs: int
) -> ViewsCost:
    """Return the cost of building a teacher's views, and after how many runs it saves time.

    Args:
        teacher: its name in the sheet.
        measured: what `benchmarks.sides.skd_side.measure_views` returned, or a ``failure``.
        rows: the rows of all cases. The time that a run saves is the difference of our rows with
            and without a live teacher, of the same variant and number of lanes.
        epochs: epochs of a run.
    """
    cost = ViewsCost(teacher=teacher, **measured)
    if cost.seconds is None:
        return cost
    live = {_configuration(row): row for row in rows if row.side == LIVE and _has_epochs(row)}
    break_even = {}
    for row in rows:
        live_row = live.get(_configuration(row))
        if row.teacher == teacher and uses_views(row) and live_row and _has_epochs(row):
            saved = live_row.seconds_per_epoch - row.seconds_per_epoch
            runs = arithmetic.break_even_runs(cost.seconds, saved, epochs)
            break_even[f"{row.pair}/{row.method}"] = runs
    return cost.model_copy(update={"pays_after_runs": break_even})


def _configuration(row: BenchmarkRow) -> tuple[str, str, str | None, int]:
    return row.pair, row.method, row.variant, row.lanes


def _has_epochs(row: BenchmarkRow) -> bool:
    return row.seconds_per_epoch is not None
