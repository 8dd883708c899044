"""Means, standard deviations, differences and their confidence intervals.

All intervals are Student's t intervals, because a cell has only a few seeds. Seeds are paired
across methods (same initial weights, order and views), so two methods are compared by their
difference at each common seed. `report.statistics.verdicts` judges published values with these
functions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats

ALPHA = 0.05  # significance level of every test
CONFIDENCE = 0.95
EQUIVALENCE_CONFIDENCE = 0.90  # the interval of two one-sided tests at 5 %
ROUNDING_DECIMALS = 9  # values that differ only after these decimals are equal


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of one quantity over seeds.

    Attributes:
        n: number of values.
        mean: ``None`` if there is no value.
        sd: sample standard deviation (ddof 1); ``None`` for fewer than two values.
        resolution: the step between possible values. An accuracy over M images is a multiple of
            100/M, so a few equal accuracies do not prove that the variance is zero.
    """

    n: int
    mean: float | None
    sd: float | None
    resolution: float = 0.0

    @property
    def se(self) -> float | None:
        """The mean's standard error, √((sd² + resolution²/12)/n).

        Rounding to a step adds a variance of step²/12. ``None`` for fewer than two values.
        """
        if self.sd is None:
            return None
        return math.sqrt((self.sd**2 + self.resolution**2 / 12) / self.n)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean's 95 % t interval, mean ± t(0.975; n − 1)·se, or ``None`` below two values."""
        if self.mean is None or self.se is None:
            return None
        half = t_quantile(CONFIDENCE, self.n - 1) * self.se
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Difference:
    """A mean difference with its standard error.

    Attributes:
        n: number of common seeds, or of our runs if the other side is a published value.
        mean: the mean difference.
        se: its standard error; ``None`` if n is 1.
        df: degrees of freedom of ``se``.
    """

    n: int
    mean: float
    se: float | None
    df: float | None

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Return mean ± t·se, or ``None`` without a standard error."""
        if self.se is None or self.df is None:
            return None
        half = t_quantile(confidence, self.df) * self.se
        return self.mean - half, self.mean + half

    @property
    def excludes_zero(self) -> bool | None:
        """Whether the 95 % interval excludes zero; ``None`` without an interval."""
        bounds = self.interval()
        return None if bounds is None else bounds[0] > 0 or bounds[1] < 0

    @property
    def direction(self) -> int:
        """1 or −1 if the 95 % interval is above or below zero; otherwise 0."""
        return (1 if self.mean > 0 else -1) if self.excludes_zero else 0

    def is_within(self, margin: float) -> bool | None:
        """Whether the 90 % interval is within ± ``margin``; ``None`` without an interval.

        This is equivalent to two one-sided t tests at 5 % (TOST, Schuirmann 1987).
        """
        bounds = self.interval(EQUIVALENCE_CONFIDENCE)
        return None if bounds is None else -margin <= bounds[0] and bounds[1] <= margin

    def is_beyond(self, margin: float) -> bool | None:
        """Whether the 90 % interval is outside ± ``margin``; ``None`` without an interval."""
        bounds = self.interval(EQUIVALENCE_CONFIDENCE)
        return None if bounds is None else bounds[0] > margin or bounds[1] < -margin

    @property
    def p(self) -> float | None:
        """The two-sided p-value of a zero difference; ``None`` without a standard error."""
        if self.se is None or self.df is None:
            return None
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.se, self.df))

    def p_within(self, margin: float) -> float | None:
        """The larger p-value of the two one-sided t tests; ``None`` without a standard error."""
        if self.se is None or self.df is None:
            return None
        nearest = margin - abs(self.mean)
        if self.se == 0:
            return 0.0 if nearest >= 0 else 1.0
        return float(stats.t.sf(nearest / self.se, self.df))


@cache
def t_quantile(confidence: float, df: float) -> float:
    """Return the t quantile of a two-sided interval with this confidence."""
    return float(stats.t.ppf((1 + confidence) / 2, df))


def summarise(values: Iterable[float], resolution: float = 0.0) -> Summary:
    """Return the mean and the sample standard deviation (ddof 1) of finite values.

    ``resolution`` is the step between possible values.

    Raises:
        ValueError: a value is not finite. Ignoring it would give a wrong number.
    """
    numbers = _finite(values)
    n = len(numbers)
    if n == 0:
        return Summary(0, None, None, resolution)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Summary(1, mean, None, resolution)
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (n - 1))
    return Summary(n, mean, sd, resolution)


def mean_difference(differences: Iterable[float], resolution: float = 0.0) -> Difference | None:
    """Return the mean difference with n − 1 degrees of freedom, or ``None`` for no differences.

    Args:
        differences: each is the difference of two values.
        resolution: the step between possible values. Both values of a difference are rounded to
            it, so the rounding variance counts twice.

    Raises:
        ValueError: a difference is not finite.
    """
    summary = summarise(differences, math.sqrt(2) * resolution)
    if summary.mean is None:
        return None
    df = summary.n - 1 if summary.se is not None else None
    return Difference(summary.n, summary.mean, summary.se, df)


def paired_difference(
    treated: Mapping[int, float], control: Mapping[int, float], resolution: float = 0.0
) -> Difference | None:
    """Return the mean of ``treated`` minus ``control`` over their common seeds."""
    common = sorted(treated.keys() & control.keys())
    return mean_difference((treated[seed] - control[seed] for seed in common), resolution)


def average_by_seed(groups: Collection[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean over the groups at each seed that all groups have; empty for no groups."""
    seeds = set.intersection(*map(set, groups)) if groups else set()
    return {seed: sum(group[seed] for group in groups) / len(groups) for seed in sorted(seeds)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method (Holm 1979), in the order given.

    The i-th smallest of m p-values is multiplied by m − i + 1. The adjusted values never decrease
    along that order.
    """
    m = len(p_values)
    adjusted = [0.0] * m
    largest = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _finite(values: Iterable[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"some values are not finite: {numbers}; statistics need finite values")
    return numbers
