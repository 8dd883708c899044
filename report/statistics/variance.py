"""Where one pair's spread of accuracy comes from: method, seed, and the rest.

A two-way layout without replication, method × seed. A seed sets initial weights, order and views of
all methods alike, so its part is what pairing takes out of a comparison. By expected mean squares
(methods fixed, seeds random): σ²_rest = MS_rest, σ²_seed = (MS_seed − MS_rest)/k, and the methods'
own variance θ²_method = (MS_method − MS_rest)/s, for k methods and s seeds; below zero is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DECIMALS = 9  # what is left of equal differences is rounding, not spread


@dataclass(frozen=True)
class VarianceSplit:
    """Variances in squared points.

    Attributes:
        methods: k.
        seeds: s, those that all methods have.
        method: between methods' true means.
        seed: shared by all methods of a seed.
        rest: of one run beside that.
    """

    methods: int
    seeds: int
    method: float
    seed: float
    rest: float

    @property
    def gain_of_pairing(self) -> float | None:
        """Unpaired seeds needed for one paired seed: (σ²_seed + σ²_rest)/σ²_rest."""
        return (self.seed + self.rest) / self.rest if self.rest else None


def split_variance(accuracy: Mapping[str, Mapping[int, float]]) -> VarianceSplit | None:
    """Return the split of accuracies by method, then seed; none below two of either in common."""
    methods = list(accuracy)
    if len(methods) < 2:
        return None
    seeds = sorted(set.intersection(*(set(found) for found in accuracy.values())))
    if len(seeds) < 2:
        return None
    values = np.array([[accuracy[method][seed] for seed in seeds] for method in methods])
    k, s = values.shape
    by_method, by_seed = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_method[:, None] - by_seed[None, :] + values.mean()
    ms_rest = float((rest.round(DECIMALS) ** 2).sum() / ((k - 1) * (s - 1)))
    ms_method = float(s * by_method.var(ddof=1))
    ms_seed = float(k * by_seed.var(ddof=1))
    return VarianceSplit(
        methods=k,
        seeds=s,
        method=max(0.0, (ms_method - ms_rest) / s),
        seed=max(0.0, (ms_seed - ms_rest) / k),
        rest=ms_rest,
    )
