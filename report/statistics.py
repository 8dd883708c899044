"""The statistics of the report: means, spreads, and differences paired by seed.

Seeds are paired across methods (same initial weights, order and views), so a method is compared
with the student alone by the difference at each common seed, with Student's t interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Values of one quantity over seeds. One value has no standard deviation."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """A mean difference over ``n`` common seeds. One seed has no interval."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def separated(self) -> bool | None:
        """Whether the interval excludes zero; none where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0


def summarise(values: Iterable[float]) -> Summary:
    """Return the mean and the sample standard deviation (ddof 1) of finite values.

    Raises:
        ValueError: a value is not finite; leaving it out in silence would make a wrong number.
    """
    numbers = _finite(values)
    n = len(numbers)
    if n == 0:
        return Summary(0, None, None)
    mean = math.fsum(numbers) / n
    return Summary(n, mean, _sd(numbers, mean) if n > 1 else None)


def mean_difference(differences: Iterable[float]) -> Difference | None:
    """Return the mean of differences with its t interval, or none where there are none.

    Raises:
        ValueError: a difference is not finite.
    """
    numbers = _finite(differences)
    n = len(numbers)
    if n == 0:
        return None
    mean = math.fsum(numbers) / n
    if n == 1:
        return Difference(1, mean, None, None)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, df=n - 1))
    half = quantile * _sd(numbers, mean) / math.sqrt(n)
    return Difference(n, mean, mean - half, mean + half)


def paired_difference(
    treated: Mapping[int, float], control: Mapping[int, float]
) -> Difference | None:
    """Return the mean of ``treated`` minus ``control`` over the seeds that both have."""
    common = sorted(treated.keys() & control.keys())
    return mean_difference(treated[seed] - control[seed] for seed in common)


def _finite(values: Iterable[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"statistics of values that are not finite: {numbers}")
    return numbers


def _sd(numbers: list[float], mean: float) -> float:
    return math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))
