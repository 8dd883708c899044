"""The arithmetic of a comparison: pure functions. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95
FORWARD_AND_BACKWARD = 3  # the field's count: the backward pass costs two forward ones


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast, and the 95 % interval: none of fewer than six rounds."""

    value: float
    low: float | None = None
    high: float | None = None


def alternation(sides: Sequence[str], rounds: int) -> list[tuple[str, ...]]:
    """Return the order of the sides in each round: A B, B A, A B, …

    So what drifts while the rounds go on (a clock, a neighbour's load) falls on all sides alike.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    forward = tuple(sides)
    return [forward[::-1] if number % 2 else forward for number in range(rounds)]


def images_per_second(batch_size: int, lanes: int, seconds_per_step: float) -> float:
    """Return the training images of all lanes in a second, evaluation not counted."""
    return batch_size * lanes / seconds_per_step


def seconds_per_epoch(
    steps: int, seconds_per_step: float, evaluation_seconds: float, lanes: int = 1
) -> float:
    """Return what an epoch of one run takes: its steps and an evaluation.

    ``lanes`` runs step, and are evaluated, together, and share that time.
    """
    return (steps * seconds_per_step + evaluation_seconds) / lanes


def evaluation_share(steps: int, seconds_per_step: float, evaluation_seconds: float) -> float:
    """Return the evaluation's share of an epoch, in [0, 1]."""
    return evaluation_seconds / (steps * seconds_per_step + evaluation_seconds)


def paired_ratio(reference: Sequence[float], measured: Sequence[float]) -> SpeedRatio:
    """Return how many times as fast the measured side is, with an interval.

    The median of the rounds' own ratios: the two sides of a round are measured one after the other,
    so that what disturbs it as a whole cancels, and a round in which a neighbour disturbed one side
    alone does not decide. The interval is the median's by order statistics, which assumes nothing
    of the ratios' distribution: of 6 to 8 rounds, from the least to the largest.

    Args:
        reference: seconds an image (or a step) in each round.
        measured: likewise, in the same rounds.

    Raises:
        ValueError: another number of rounds, or none.
    """
    if not reference or len(reference) != len(measured):
        raise ValueError(
            f"rounds must be paired, got {len(reference)} of the reference and {len(measured)}"
        )
    ratios = sorted(one / other for one, other in zip(reference, measured, strict=True))
    trimmed = _trimmed(len(ratios))
    if trimmed is None:
        return SpeedRatio(median(ratios))
    return SpeedRatio(median(ratios), ratios[trimmed], ratios[-1 - trimmed])


def _trimmed(count: int) -> int | None:
    """Return how many values to leave out at each end; none: all together reach no 95 %."""
    found, outside = None, 0.0
    for left_out in range(count):
        outside += 2 * math.comb(count, left_out) / 2**count  # that the median is beyond either
        if outside > 1 - CONFIDENCE:
            break
        found = left_out
    return found


def step_multiply_adds(student: int, extra: int, live_teacher: int, batch_size: int) -> int:
    """Return the multiply-adds of one run's training step, as the field counts them.

    Args:
        student: of one forward pass of the student on one image.
        extra: likewise, of what the method trains beside it.
        live_teacher: likewise, of the teacher: forward only, and 0 where it does not run.
        batch_size: images in the step.
    """
    return batch_size * (FORWARD_AND_BACKWARD * (student + extra) + live_teacher)


def share_of_peak(multiply_adds: int, seconds: float, peak: float) -> float:
    """Return the share of a device's peak that a step reaches.

    Args:
        multiply_adds: of the step, all lanes together.
        seconds: of the step.
        peak: multiply-adds a second.
    """
    return multiply_adds / seconds / peak


def break_even_runs(
    build_seconds: float, seconds_saved_per_epoch: float, epochs: int
) -> float | None:
    """Return after how many runs building the teacher's views has paid; none where it never does.

    Args:
        build_seconds: of building all views of the data set, once a teacher.
        seconds_saved_per_epoch: seconds that one run saves an epoch by them.
        epochs: of a run.
    """
    return (
        build_seconds / (seconds_saved_per_epoch * epochs) if seconds_saved_per_epoch > 0 else None
    )
