"""Mean ranks of methods over pairs: Friedman's test and Nemenyi's critical difference.

Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets". Rank 1 is the best.
Tied methods share their mean rank. For k methods on N pairs, two methods are not significantly
different if their mean ranks differ by less than the critical difference
CD = q(α; k, ∞)/√2 · √(k(k + 1)/(6N)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from report.statistics.intervals import ALPHA, ROUNDING_DECIMALS


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over the pairs that all methods have.

    Attributes:
        pairs: number of pairs, N.
        ranks: mean rank by method, best first.
        p: p-value of Friedman's test that all methods are equal; ``None`` for fewer than three
            methods, or if all accuracies of every pair are equal.
        critical_difference: Nemenyi's critical difference at 5 %.
    """

    pairs: int
    ranks: dict[str, float]
    p: float | None
    critical_difference: float

    def cliques(self) -> list[tuple[str, ...]]:
        """Return the largest groups of methods that do not differ significantly, best first."""
        methods = list(self.ranks)
        groups: list[tuple[str, ...]] = []
        for i, first in enumerate(methods):
            near = [
                m
                for m in methods[i:]
                if self.ranks[m] - self.ranks[first] < self.critical_difference
            ]
            if len(near) > 1 and not any(set(near) <= set(group) for group in groups):
                groups.append(tuple(near))
        return groups


def rank_methods(accuracy: Mapping[str, Mapping[str, float]]) -> Ranking | None:
    """Return the mean ranks of methods, or ``None`` for fewer than two methods or common pairs.

    Args:
        accuracy: mean accuracy by method, then by pair. A pair is ignored unless all methods
            have it.
    """
    methods = list(accuracy)
    if len(methods) < 2:
        return None
    pairs = sorted(set.intersection(*(set(by_pair) for by_pair in accuracy.values())))
    if len(pairs) < 2:
        return None
    values = np.array([[accuracy[method][pair] for method in methods] for pair in pairs])
    values = values.round(ROUNDING_DECIMALS)  # a difference from rounding is a tie
    means = stats.rankdata(-values, axis=1).mean(axis=0)
    k = len(methods)
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, k, math.inf)) / math.sqrt(2)
    p = None
    if k > 2 and not (values == values[:, :1]).all():
        p = float(stats.friedmanchisquare(*values.T).pvalue)
    order = sorted(range(k), key=lambda i: means[i])
    return Ranking(
        pairs=len(pairs),
        ranks={methods[i]: float(means[i]) for i in order},
        p=p,
        critical_difference=quantile * math.sqrt(k * (k + 1) / (6 * len(pairs))),
    )
