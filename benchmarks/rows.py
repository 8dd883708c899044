"""From what was measured to the rows of the result. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import measure
from benchmarks.cases import Case
from benchmarks.results import Peak, Row, SpeedUp, TeacherViews
from benchmarks.running import TIME_IS_UP, Measured
from benchmarks.sides import LIVE, OURS, SIDES

PRECISION = "float32"  # of a side that does not say


def precision_of(how: Mapping[str, Any]) -> str:
    """Return the precision that a side computes in."""
    return how.get("precision", PRECISION)


def rows_of(case: Case, measured: Sequence[Measured], peaks: Mapping[str, Peak]) -> list[Row]:
    """Return a case's rows, one a side.

    Args:
        case: what was trained.
        measured: its sides, ours once for each variant and number of lanes; their rows are in
            the order of `SIDES`.
        peaks: by precision; the share of one that is not here stays open.
    """
    return [_row(case, found, peaks) for found in sorted(measured, key=_place)]


def _place(found: Measured) -> int:
    return SIDES.index(found.side)


def _row(case: Case, found: Measured, peaks: Mapping[str, Peak]) -> Row:
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
        return Row(**row, failure=found.failure, unfit=found.unfit)
    if found.skipped:
        return Row(**row, failure=TIME_IS_UP, skipped=True)
    lanes, steps = row["lanes"], case.steps_per_epoch
    seconds = median(found.rounds)
    work = lanes * _multiply_adds(case, found.how)
    peak = peaks.get(precision_of(found.how))
    return Row(
        **row,
        **_with_evaluation(found, steps, seconds, lanes),
        rounds=tuple(found.rounds),
        plain_rounds=tuple(found.plain_rounds),
        seconds_per_step=seconds,
        images_per_second=measure.images_per_second(case.batch_size, lanes, seconds),
        peak_memory_bytes=found.peak_memory_bytes,
        multiply_adds=work,
        share_of_peak=(
            measure.share_of_peak(work, seconds, peak.multiply_adds_per_second) if peak else None
        ),
        speed_up=_speed_up(found, lanes),
    )


def _with_evaluation(found: Measured, steps: int, seconds: float, lanes: int) -> dict[str, Any]:
    if not found.evaluations:  # time was up
        return {}
    evaluation = median(found.evaluations)
    return {
        "evaluations": tuple(found.evaluations),
        "evaluation_seconds": evaluation,
        "evaluation_share": measure.evaluation_share(steps, seconds, evaluation),
        "seconds_per_epoch": measure.seconds_per_epoch(steps, seconds, evaluation, lanes),
    }


def _multiply_adds(case: Case, how: Mapping[str, Any]) -> int:
    live = case.teacher_facts is not None and how.get("teacher") == "live"
    return measure.step_multiply_adds(
        student=case.student_facts.multiply_adds,
        extra=case.extra.multiply_adds,
        live_teacher=case.teacher_facts.multiply_adds if live else 0,
        batch_size=case.batch_size,
    )


def _speed_up(found: Measured, lanes: int) -> SpeedUp | None:
    """Return the ratio by seconds a step of one run; none unless plain was in every round."""
    if len(found.plain_rounds) != len(found.rounds):
        return None
    own = [seconds / lanes for seconds in found.rounds]
    return SpeedUp(**asdict(measure.paired_ratio(found.plain_rounds, own)))


def uses_views(row: Row) -> bool:
    """Whether a row is ours, with the teacher's forward pass replaced by a look-up."""
    return row.side == OURS and not row.failure and row.how.get("teacher") == "views"


def teacher_views(
    teacher: str, found: Mapping[str, Any], rows: Sequence[Row], epochs: int
) -> TeacherViews:
    """Return what building a teacher's views takes, and after how many runs it pays.

    Args:
        teacher: its name in the sheet.
        found: what `benchmarks.ours.measure_views` returned, or a ``failure``.
        rows: of all cases: what a run saves is the difference of our rows with a live teacher
            and without, of the same variant and number of lanes.
        epochs: of a run.
    """
    built = TeacherViews(teacher=teacher, **found)
    if built.seconds is None:
        return built
    live = {_configuration(row): row for row in rows if row.side == LIVE and _has_epochs(row)}
    pays = {}
    for row in rows:
        other = live.get(_configuration(row))
        if row.teacher == teacher and uses_views(row) and other is not None and _has_epochs(row):
            saved = other.seconds_per_epoch - row.seconds_per_epoch
            pays[f"{row.pair}/{row.method}"] = measure.runs_until_paid(built.seconds, saved, epochs)
    return built.model_copy(update={"pays_after_runs": pays})


def _configuration(row: Row) -> tuple[str, str, str | None, int]:
    return row.pair, row.method, row.variant, row.lanes


def _has_epochs(row: Row) -> bool:
    return row.seconds_per_epoch is not None
