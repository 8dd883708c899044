"""The variance of one pair's accuracies, split into method, seed and residual.

This is a two-way layout without replication, method × seed. A seed sets the initial weights, order
and views of all methods, so pairing by seed removes the seed's variance from a comparison. For k
methods (fixed) and s seeds (random), the expected mean squares give σ²_rest = MS_rest,
σ²_seed = (MS_seed − MS_rest)/k and θ²_method = (MS_method − MS_rest)/s. Negative estimates are set
to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from report.statistics.intervals import ROUNDING_DECIMALS


@dataclass(frozen=True)
class VarianceSplit:
    """Variances in squared points.

    Attributes:
        methods: number of methods, k.
        seeds: number of seeds that all methods have, s.
        method: between the methods' means.
        seed: between seeds, shared by all methods.
        rest: residual, of one run.
    """

    methods: int
    seeds: int
    method: float
    seed: float
    rest: float

    @property
    def gain_of_pairing(self) -> float | None:
        """Number of unpaired seeds that one paired seed replaces: (σ²_seed + σ²_rest)/σ²_rest."""
        return (self.seed + self.rest) / self.rest if self.rest else None


def split_variance(accuracy: Mapping[str, Mapping[int, float]]) -> VarianceSplit | None:
    """Split the variance of accuracies, given by method and then by seed.

    Returns ``None`` for fewer than two methods or two common seeds.
    """
    methods = list(accuracy)
    if len(methods) < 2:
        return None
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in accuracy.values())))
    if len(seeds) < 2:
        return None
    values = np.array([[accuracy[method][seed] for seed in seeds] for method in methods])
    k, s = values.shape
    by_method, by_seed = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_method[:, None] - by_seed[None, :] + values.mean()
    # Equal differences leave residuals of rounding only.
    ms_rest = float((rest.round(ROUNDING_DECIMALS) ** 2).sum() / ((k - 1) * (s - 1)))
    ms_method = float(s * by_method.var(ddof=1))
    ms_seed = float(k * by_seed.var(ddof=1))
    return VarianceSplit(
        methods=k,
        seeds=s,
        method=max(0.0, (ms_method - ms_rest) / s),
        seed=max(0.0, (ms_seed - ms_rest) / k),
        rest=ms_rest,
    )
