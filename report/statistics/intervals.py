"""The elementary statistics of the report: means, spreads, differences and their intervals.

Everything rests on Student's t, since a cell has a handful of seeds. Seeds are paired across
methods (same initial weights, order and views), so two methods are compared by their difference at
each common seed. What is done with these, to judge a published value: `report.statistics.verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats

CONFIDENCE = 0.95
EQUIVALENCE_CONFIDENCE = 0.90  # the interval of two one-sided tests at 5 %


@dataclass(frozen=True)
class Summary:
    """Values of one quantity over seeds. One value has no standard deviation.

    Attributes:
        n: how many.
        mean: none of no value.
        sd: sample standard deviation (ddof 1), or none.
        resolution: the step between possible values. An accuracy over M images is a multiple of
            100/M: a few equal ones do not show that there is no spread.
    """

    n: int
    mean: float | None
    sd: float | None
    resolution: float = 0.0

    @property
    def se(self) -> float | None:
        """The mean's standard error, √((sd² + resolution²/12)/n); none below two values.

        A value that is rounded to a step has that step squared over twelve as its own variance.
        """
        if self.sd is None:
            return None
        return math.sqrt((self.sd**2 + self.resolution**2 / 12) / self.n)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean: mean ± t(0.975; n − 1)·se; none below two values."""
        if self.mean is None or self.se is None:
            return None
        half = t_quantile(CONFIDENCE, self.n - 1) * self.se
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Difference:
    """A mean difference with its standard error.

    Attributes:
        n: common seeds, or runs on this side.
        mean: the difference.
        se: its standard error; none where one run is all there is.
        df: degrees of freedom of ``se``.
    """

    n: int
    mean: float
    se: float | None
    df: float | None

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Return mean ± t·se, or none without a standard error."""
        if self.se is None or self.df is None:
            return None
        half = t_quantile(confidence, self.df) * self.se
        return self.mean - half, self.mean + half

    @property
    def separated(self) -> bool | None:
        """Whether the 95 % interval excludes zero; none where there is no interval."""
        bounds = self.interval()
        return None if bounds is None else bounds[0] > 0 or bounds[1] < 0

    def within(self, margin: float) -> bool | None:
        """Whether it is shown to be smaller than a margin; none where there is no interval.

        By two one-sided t tests at 5 % (TOST, Schuirmann 1987), which is the same as: the 90 %
        interval lies within ± ``margin``.
        """
        bounds = self.interval(EQUIVALENCE_CONFIDENCE)
        return None if bounds is None else -margin <= bounds[0] and bounds[1] <= margin

    def is_beyond(self, margin: float) -> bool | None:
        """Whether the 90 % interval lies wholly outside ± ``margin``; none without an interval."""
        bounds = self.interval(EQUIVALENCE_CONFIDENCE)
        return None if bounds is None else bounds[0] > margin or bounds[1] < -margin

    @property
    def p(self) -> float | None:
        """The two-sided p-value of no difference; none where there is no interval."""
        if self.se is None or self.df is None:
            return None
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.se, self.df))

    def p_within(self, margin: float) -> float | None:
        """The larger p-value of the two one-sided t tests; none where there is no interval."""
        if self.se is None or self.df is None:
            return None
        nearest = margin - abs(self.mean)
        if self.se == 0:
            return 0.0 if nearest >= 0 else 1.0
        return float(stats.t.sf(nearest / self.se, self.df))


@cache
def t_quantile(confidence: float, df: float) -> float:
    """Return the t quantile of a two-sided interval of this confidence."""
    return float(stats.t.ppf((1 + confidence) / 2, df))


def summarise(values: Iterable[float], resolution: float = 0.0) -> Summary:
    """Return the mean and the sample standard deviation (ddof 1) of finite values.

    ``resolution`` is the step between possible values.

    Raises:
        ValueError: a value is not finite; leaving it out in silence would make a wrong number.
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
    """Return the mean of differences with n − 1 degrees of freedom, or none where there are none.

    Args:
        differences: of two values each.
        resolution: the step of those values; a difference of two has twice its variance.

    Raises:
        ValueError: a difference is not finite.
    """
    found = summarise(differences, math.sqrt(2) * resolution)
    if found.mean is None:
        return None
    return Difference(found.n, found.mean, found.se, found.n - 1 if found.se is not None else None)


def paired_difference(
    treated: Mapping[int, float], control: Mapping[int, float], resolution: float = 0.0
) -> Difference | None:
    """Return the mean of ``treated`` minus ``control`` over the seeds that both have."""
    common = sorted(treated.keys() & control.keys())
    return mean_difference((treated[seed] - control[seed] for seed in common), resolution)


def average_by_seed(groups: Collection[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean over groups at each seed that all of them have; of no group, nothing."""
    seeds = set.intersection(*map(set, groups)) if groups else set()
    return {seed: sum(group[seed] for group in groups) / len(groups) for seed in sorted(seeds)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method (Holm 1979), in the order given.

    The i-th smallest of m is multiplied by m − i + 1; a later one is never below an earlier one.
    """
    m = len(p_values)
    adjusted = [0.0] * m
    largest = 0.0
    for rank, place in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _finite(values: Iterable[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"statistics of values that are not finite: {numbers}")
    return numbers
