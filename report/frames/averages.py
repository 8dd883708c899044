"""Differences between two methods, averaged over pairs at each seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from report.frames.cells import CONTROL, PairFinding
from report.statistics.intervals import Difference, average_by_seed, mean_difference


@dataclass(frozen=True)
class AverageDifference:
    """Method a minus method b, averaged over pairs at each seed.

    Attributes:
        pairs: the pairs that have both methods at a common seed.
        by_seed: the average over pairs, in points.
        difference: the mean over seeds with its standard error.
        accuracies: mean accuracy of a and of b over the same pairs and seeds, in percent.
    """

    a: str
    b: str
    pairs: tuple[str, ...]
    by_seed: dict[int, float]
    difference: Difference
    accuracies: tuple[float, float]

    def minus(self, other: AverageDifference) -> Difference | None:
        """Return a minus the other's a over the common seeds, or ``None`` without any.

        Both have the same b and should have the same pairs.
        """
        seeds = sorted(self.by_seed.keys() & other.by_seed.keys())
        return mean_difference(self.by_seed[seed] - other.by_seed[seed] for seed in seeds)


def average_difference(pairs: Sequence[PairFinding], a: str, b: str) -> AverageDifference | None:
    """Return a minus b over the pairs that have both, or ``None`` without a common seed.

    The difference is first averaged over the pairs at each seed that all these pairs have. The
    interval is then over seeds, so runs that several pairs share do not count several times.
    """
    of_a: dict[str, dict[int, float]] = {}
    of_b: dict[str, dict[int, float]] = {}
    for pair in pairs:
        cell_a, cell_b = pair.cell(a), pair.cell(b)
        if cell_a is None or cell_b is None:
            continue
        if common := cell_a.last_by_seed.keys() & cell_b.last_by_seed.keys():
            of_a[pair.pair] = {seed: cell_a.last_by_seed[seed] for seed in common}
            of_b[pair.pair] = {seed: cell_b.last_by_seed[seed] for seed in common}
    means_a, means_b = average_by_seed(of_a.values()), average_by_seed(of_b.values())
    if not means_a:
        return None
    by_seed = {seed: means_a[seed] - means_b[seed] for seed in means_a}
    # The mean over pairs has a finer resolution than the accuracy of one pair.
    step = pairs[0].resolution / math.sqrt(len(of_a))
    accuracies = tuple(sum(means.values()) / len(means) for means in (means_a, means_b))
    difference = mean_difference(by_seed.values(), step)
    return AverageDifference(a, b, tuple(of_a), by_seed, difference, accuracies)


def average_gains(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[AverageDifference]:
    """Return each method's average gain over the student alone, largest first."""
    gains = (average_difference(pairs, method, CONTROL) for method in methods if method != CONTROL)
    return sorted((gain for gain in gains if gain), key=lambda gain: -gain.difference.mean)


def comparable(gains: Sequence[AverageDifference]) -> list[AverageDifference]:
    """Return the gains that can be ranked: over the same pairs, and over several seeds.

    A gain is left out if it lacks a pair that another one covers, or if it has only one seed while
    others have an interval.
    """
    covered = {pair for gain in gains for pair in gain.pairs}
    full = [gain for gain in gains if set(gain.pairs) == covered]
    with_interval = [gain for gain in full if gain.difference.se is not None]
    return with_interval or full
