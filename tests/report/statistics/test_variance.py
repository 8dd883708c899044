"""The split of a pair's variance: against statsmodels' two-way ANOVA, and by simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from report.statistics.variance import VarianceSplit, split_variance


def accuracy_of(values: np.ndarray) -> dict[str, dict[int, float]]:
    """Return rows of methods, columns of seeds, as accuracy by method, then seed."""
    return {f"m{i}": dict(enumerate(map(float, row))) for i, row in enumerate(values)}


def mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Return statsmodels' mean squares of method, seed and residual."""
    data = pd.DataFrame(
        [(i, j, value) for (i, j), value in np.ndenumerate(values)],
        columns=["method", "seed", "top1"],
    )
    table = anova_lm(ols("top1 ~ C(method) + C(seed)", data).fit())
    return tuple(table["sum_sq"] / table["df"])


@pytest.mark.parametrize(("k", "s"), [(2, 2), (3, 5), (10, 3), (4, 7)])
def test_variances_are_those_of_statsmodels_mean_squares(k, s):
    rng = np.random.default_rng(k)
    values = 70 + rng.normal(0, 1, (k, 1)) + rng.normal(0, 0.5, (1, s)) + rng.normal(0, 0.2, (k, s))
    ms_method, ms_seed, ms_rest = mean_squares(values)
    split = split_variance(accuracy_of(values))
    assert (split.methods, split.seeds) == (k, s)
    assert split.rest == pytest.approx(ms_rest)
    assert split.method == pytest.approx(max(0, (ms_method - ms_rest) / s))
    assert split.seed == pytest.approx(max(0, (ms_seed - ms_rest) / k))
    assert split.method > 0


def test_a_split_by_hand():
    # Methods' means 70 and 72, seeds' 70, 71 and 72 of mean 71; the residuals are ± 0.5, ∓ 0.5, 0.
    values = np.array([[69.5, 69.5, 71.0], [70.5, 72.5, 73.0]])
    # MS_rest = 4·0.25/2 = 0.5; MS_seed = 2·(1 + 0 + 1)/2 = 2; MS_method = 3·(1 + 1)/1 = 6.
    split = split_variance(accuracy_of(values))
    assert split.rest == pytest.approx(0.5)
    assert split.seed == pytest.approx((2 - 0.5) / 2)
    assert split.method == pytest.approx((6 - 0.5) / 3)
    assert split.gain_of_pairing == pytest.approx((0.75 + 0.5) / 0.5)


@pytest.mark.parametrize(("k", "s"), [(3, 3), (5, 5)])
def test_known_components_are_recovered_on_average(k, s):
    """Methods fixed at 0, 1, 2, …; seeds of variance 1, so large that nothing is cut at zero."""
    rng = np.random.default_rng(s)
    repeats = 4_000
    means = np.arange(k, dtype=float)
    splits = []
    for _ in range(repeats):
        noise = rng.normal(0, 0.1, (k, s))
        values = 70 + means[:, None] + rng.normal(0, 1, (1, s)) + noise
        splits.append(split_variance(accuracy_of(values)))
    for name, truth in (("method", means.var(ddof=1)), ("seed", 1.0), ("rest", 0.01)):
        estimates = np.array([getattr(split, name) for split in splits])
        error = estimates.std() / repeats**0.5
        assert estimates.mean() == pytest.approx(truth, abs=4 * error)
        assert error < 0.02 * truth + 1e-3


def test_without_effects_the_rest_is_all_and_estimates_are_cut_at_zero():
    rng = np.random.default_rng(0)
    splits = [split_variance(accuracy_of(rng.normal(70, 0.2, (3, 4)))) for _ in range(1_000)]
    assert np.mean([split.rest for split in splits]) == pytest.approx(0.04, rel=0.1)
    for name in ("method", "seed"):
        estimates = np.array([getattr(split, name) for split in splits])
        assert estimates.min() == 0
        assert 0.4 < (estimates == 0).mean() < 0.8
        assert estimates.mean() < 0.01


def test_a_negative_estimate_is_zero():
    # The seeds reverse the methods' order: no method and no seed has a better mean.
    split = split_variance(accuracy_of(np.array([[1.0, -1.0], [-1.0, 1.0]])))
    assert split == VarianceSplit(2, 2, 0.0, 0.0, 4.0)
    assert split.gain_of_pairing == 1


def test_only_seeds_that_all_methods_have_count():
    values = np.random.default_rng(1).normal(70, 1, (3, 3))
    accuracy = accuracy_of(values)
    accuracy["m0"][7] = 0.0
    accuracy["m1"] = {9: 100.0, **dict(reversed(accuracy["m1"].items()))}
    assert split_variance(accuracy) == split_variance(accuracy_of(values))


def test_there_is_no_split_below_two_methods_or_two_common_seeds():
    assert split_variance({}) is None
    assert split_variance({"kd": {0: 70.0, 1: 71.0}}) is None
    assert split_variance({"kd": {0: 70.0, 1: 71.0}, "skd": {0: 70.0}}) is None
    assert split_variance({"kd": {0: 70.0, 1: 71.0}, "skd": {2: 70.0, 3: 71.0}}) is None
    assert split_variance({"kd": {0: 70.0, 1: 71.0}, "skd": {}}) is None


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_rounding_does_not_count_as_spread(shift):
    # Two methods with equal numbers, or with the same difference at each seed.
    seeds = np.array([69.56, 70.02, 69.78])
    split = split_variance(accuracy_of(np.array([seeds, seeds + shift])))
    assert split.rest == 0
    assert split.gain_of_pairing is None
    assert split.seed == pytest.approx(seeds.var(ddof=1))


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(6_900, 7_100), min_size=4, max_size=4), min_size=2, max_size=6
    ).map(lambda rows: np.array(rows) / 100)
)
def test_better_methods_and_luckier_seeds_change_their_own_part_alone(values):
    split = split_variance(accuracy_of(values))
    assume(split.rest > 1e-6)
    by_method = split_variance(accuracy_of(values + np.arange(len(values))[:, None]))
    by_seed = split_variance(accuracy_of(values + np.array([0, 1, 5, 2])))
    assert (by_method.rest, by_method.seed) == pytest.approx((split.rest, split.seed), abs=1e-8)
    assert (by_seed.rest, by_seed.method) == pytest.approx((split.rest, split.method), abs=1e-8)
    assert split.gain_of_pairing >= 1


def test_the_gain_of_pairing_is_how_many_times_the_variance_of_a_difference_falls():
    """By simulation: s seeds, unpaired against paired."""
    rng = np.random.default_rng(2)
    seed, rest, s, repeats = 0.4, 0.2, 3, 20_000
    shared, other = rng.normal(0, seed, (2, repeats, s))
    a, b = rng.normal(0, rest, (2, repeats, s))
    paired = ((a + shared) - (b + shared)).mean(axis=1).var()
    unpaired = ((a + shared) - (b + other)).mean(axis=1).var()
    gain = VarianceSplit(2, s, 0.0, seed**2, rest**2).gain_of_pairing
    assert gain == pytest.approx(5)
    assert unpaired / paired == pytest.approx(gain, rel=0.05)
