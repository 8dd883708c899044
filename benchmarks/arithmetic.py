"""The arithmetic of a benchmark, as pure functions. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from benchmarks.results import SpeedUp
from skd.planning.step_model import FORWARD_AND_BACKWARD

CONFIDENCE = 0.95


def alternation(sides: Sequence[str], rounds: int) -> list[tuple[str, ...]]:
    """Return the order of the sides in each round: A B, B A, A B, …

    A drift over the rounds (clock speed, load of other processes) then affects all sides equally.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    forward = tuple(sides)
    return [forward[::-1] if number % 2 else forward for number in range(rounds)]


def images_per_second(batch_size: int, lanes: int, seconds_per_step: float) -> float:
    """Return the training images per second of all lanes, without evaluation."""
    return batch_size * lanes / seconds_per_step


def seconds_per_epoch(
    steps: int, seconds_per_step: float, evaluation_seconds: float, lanes: int = 1
) -> float:
    """Return the seconds of an epoch of one run: its steps and an evaluation.

    ``lanes`` runs are trained and evaluated together and share the time.
    """
    return (steps * seconds_per_step + evaluation_seconds) / lanes


def evaluation_share(steps: int, seconds_per_step: float, evaluation_seconds: float) -> float:
    """Return the evaluation's share of an epoch, in [0, 1]."""
    return evaluation_seconds / (steps * seconds_per_step + evaluation_seconds)


def paired_ratio(reference: Sequence[float], measured: Sequence[float]) -> SpeedUp:
    """Return how many times as fast the measured side is, with a 95 % interval.

    The value is the median of the ratios of all rounds. The two sides of a round are measured one
    after the other, so a disturbance of a whole round cancels. The median is robust against rounds
    in which only one side is disturbed. The interval is that of the median by order statistics,
    which assumes no distribution. For 6 to 8 rounds it is from the smallest to the largest ratio;
    for fewer rounds there is none.

    Args:
        reference: seconds per image (or step) of the reference in each round.
        measured: seconds per image (or step) of the measured side in the same rounds.

    Raises:
        ValueError: the numbers of rounds differ, or there are no rounds.
    """
    if not reference or len(reference) != len(measured):
        raise ValueError(
            f"rounds must be paired, got {len(reference)} of the reference and {len(measured)}"
        )
    ratios = sorted(slow / fast for slow, fast in zip(reference, measured, strict=True))
    excluded = _excluded_per_end(len(ratios))
    if excluded is None:
        return SpeedUp(value=median(ratios))
    return SpeedUp(value=median(ratios), low=ratios[excluded], high=ratios[-1 - excluded])


def _excluded_per_end(count: int) -> int | None:
    """Return how many of the sorted values are outside the interval at each end.

    ``None`` if even the interval of all values does not reach the confidence.
    """
    excluded, outside = None, 0.0
    for number in range(count):
        outside += 2 * math.comb(count, number) / 2**count  # P(the median is outside)
        if outside > 1 - CONFIDENCE:
            break
        excluded = number
    return excluded


def step_multiply_adds(student: int, extra: int, live_teacher: int, batch_size: int) -> int:
    """Return the multiply-adds of one run's training step.

    The backward pass counts as two forward passes, as is common.

    Args:
        student: multiply-adds of a forward pass of the student on one image.
        extra: multiply-adds of a forward pass of the method's other trained modules.
        live_teacher: multiply-adds of a forward pass of the teacher; 0 if it does not run.
        batch_size: images in the step.
    """
    return batch_size * (FORWARD_AND_BACKWARD * (student + extra) + live_teacher)


def share_of_peak(multiply_adds: int, seconds: float, peak: float) -> float:
    """Return the share of a device's peak performance that a step reaches.

    Args:
        multiply_adds: multiply-adds of the step, all lanes together.
        seconds: duration of the step.
        peak: the device's multiply-adds per second.
    """
    return multiply_adds / seconds / peak


def break_even_runs(
    build_seconds: float, seconds_saved_per_epoch: float, epochs: int
) -> float | None:
    """Return the number of runs after which building a teacher's views saves time.

    ``None`` if it never does.

    Args:
        build_seconds: time to build all views of the data set, once per teacher.
        seconds_saved_per_epoch: time that one run saves in an epoch.
        epochs: epochs of a run.
    """
    if seconds_saved_per_epoch <= 0:
        return None
    return build_seconds / (seconds_saved_per_epoch * epochs)
