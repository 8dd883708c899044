"""From what was measured to the rows of the result. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import arithmetic
from benchmarks.case_runner import TIME_IS_UP, SideMeasurement
from benchmarks.cases import BenchmarkCase
from benchmarks.results import BenchmarkRow, HardwarePeak, SpeedUp, ViewsCost
from benchmarks.side_names import LIVE, OURS, SIDES

DEFAULT_PRECISION = "float32"  # of a side that does not say


def side_precision(how: Mapping[str, Any]) -> str:
    """Return the precision that a side computes in."""
    return how.get("precision", DEFAULT_PRECISION)


def benchmark_rows(
    case: BenchmarkCase, measured: Sequence[SideMeasurement], peaks: Mapping[str, HardwarePeak]
) -> list[BenchmarkRow]:
    """Return a case's rows, one a side.

    Args:
        case: what was trained.
        measured: its sides, ours once for each variant and number of lanes; their rows are in
            the order of `SIDES`.
        peaks: by precision; the share of one that is not here stays open.
    """
    return [_row(case, found, peaks) for found in sorted(measured, key=_place)]


def _place(found: SideMeasurement) -> int:
    return SIDES.index(found.side)


def _row(
    case: BenchmarkCase, found: SideMeasurement, peaks: Mapping[str, HardwarePeak]
) -> BenchmarkRow:
    row = {
        "pair": case.pair,
        "method": case.method,
        "teacher": case.teacher,
        "student": case.spec.network,
        "side": found.side,
        "variant": found.variant,
        "lanes": found.how.get("lanes") or found.lanes or 1,
        "how": found.how,
        "batch_size": case.batch_size,
        "steps_per_epoch": case.steps_per_epoch,
    }
    if found.failure is not None:
        return BenchmarkRow(**row, failure=found.failure, unfit=found.unfit)
    if found.skipped:
        return BenchmarkRow(**row, failure=TIME_IS_UP, skipped=True)
    lanes, steps = row["lanes"], case.steps_per_epoch
    seconds = median(found.rounds)
    work = lanes * _multiply_adds(case, found.how)
    peak = peaks.get(side_precision(found.how))
    return BenchmarkRow(
        **row,
        **_with_evaluation(found, steps, seconds, lanes),
        rounds=tuple(found.rounds),
        plain_rounds=tuple(found.plain_rounds),
        seconds_per_step=seconds,
        images_per_second=arithmetic.images_per_second(case.batch_size, lanes, seconds),
        peak_memory_bytes=found.peak_memory_bytes,
        multiply_adds=work,
        share_of_peak=(
            arithmetic.share_of_peak(work, seconds, peak.multiply_adds_per_second) if peak else None
        ),
        speed_up=_speed_up(found, lanes),
    )


def _with_evaluation(
    found: SideMeasurement, steps: int, seconds: float, lanes: int
) -> dict[str, Any]:
    if not found.evaluations:  # time was up
        return {}
    evaluation = median(found.evaluations)
    return {
        "evaluations": tuple(found.evaluations),
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


def _speed_up(found: SideMeasurement, lanes: int) -> SpeedUp | None:
    """Return the ratio by seconds a step of one run; none unless plain was in every round."""
    if len(found.plain_rounds) != len(found.rounds):
        return None
    own = [seconds / lanes for seconds in found.rounds]
    return SpeedUp(**asdict(arithmetic.paired_ratio(found.plain_rounds, own)))


def uses_views(row: BenchmarkRow) -> bool:
    """Whether a row is ours, with the teacher's forward pass replaced by a look-up."""
    return row.side == OURS and not row.failure and row.how.get("teacher") == "views"


def views_cost(
    teacher: str, found: Mapping[str, Any], rows: Sequence[BenchmarkRow], epochs: int
) -> ViewsCost:
    """Return what building a teacher's views takes, and after how many runs it pays.

    Args:
        teacher: its name in the sheet.
        found: what `benchmarks.sides.skd_side.measure_views` returned, or a ``failure``.
        rows: of all cases: what a run saves is the difference of our rows with a live teacher
            and without, of the same variant and number of lanes.
        epochs: of a run.
    """
    built = ViewsCost(teacher=teacher, **found)
    if built.seconds is None:
        return built
    live = {_configuration(row): row for row in rows if row.side == LIVE and _has_epochs(row)}
    pays = {}
    for row in rows:
        other = live.get(_configuration(row))
        if row.teacher == teacher and uses_views(row) and other is not None and _has_epochs(row):
            saved = other.seconds_per_epoch - row.seconds_per_epoch
            pays[f"{row.pair}/{row.method}"] = arithmetic.break_even_runs(
                built.seconds, saved, epochs
            )
    return built.model_copy(update={"pays_after_runs": pays})


def _configuration(row: BenchmarkRow) -> tuple[str, str, str | None, int]:
    return row.pair, row.method, row.variant, row.lanes


def _has_epochs(row: BenchmarkRow) -> bool:
    return row.seconds_per_epoch is not None
