"""Means, spreads, differences and Holm's correction, against scipy and statsmodels."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from report.statistics.intervals import (
    Difference,
    Summary,
    holm,
    mean_difference,
    paired_difference,
    summarise,
    t_quantile,
)

TREATED, CONTROL = [70.0, 70.5, 72.0, 71.1], [68.0, 69.0, 70.0, 70.4]

accuracies = st.integers(0, 10_000).map(lambda correct: correct / 100)
several = st.lists(accuracies, min_size=2, max_size=12)
p_values = st.sampled_from([0.0, 1e-9, 0.01, 0.025, 0.05, 0.5, 1.0]) | st.floats(0, 1)


def spread(values: list[float]) -> bool:
    """Return whether the values differ; scipy gives no result for equal values."""
    return len(set(values)) > 1


@settings(deadline=None)
@given(several)
def test_a_summary_is_the_mean_the_sample_deviation_and_scipys_t_interval(values):
    summary = summarise(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert summary.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assume(spread(values))
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert summary.interval == pytest.approx(expected)


def test_a_summary_by_hand():
    # Mean 3, squared deviations 4 + 1 + 0 + 1 + 4 = 10 over 4; t(0.975; 4) = 2.7764 by the table.
    summary = summarise([1, 2, 3, 4, 5])
    assert (summary.mean, summary.sd) == (3, pytest.approx(math.sqrt(2.5)))
    half = 2.7764 * math.sqrt(2.5 / 5)
    assert summary.interval == pytest.approx((3 - half, 3 + half), abs=1e-4)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert summarise([]) == Summary(0, None, None)
    assert summarise([70.0]) == Summary(1, 70.0, None)
    assert summarise([]).interval is None
    assert summarise([70.0]).interval is None


@settings(deadline=None)
@given(accuracies, st.integers(2, 12))
def test_equal_values_have_an_interval_of_no_width(value, n):
    summary = summarise([value] * n)
    assert summary.sd == pytest.approx(0, abs=1e-12)
    assert summary.interval == pytest.approx((value, value), abs=1e-10)


def test_values_may_come_from_an_iterator():
    assert summarise(iter(TREATED)) == summarise(TREATED)
    assert mean_difference(iter([1.0, 2.0])) == mean_difference([1.0, 2.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("function", [summarise, mean_difference])
def test_values_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(ValueError, match="not finite"):
        function([70.0, bad])
    with pytest.raises(ValueError, match="not finite"):
        function([bad])


def test_a_paired_difference_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        paired_difference({0: 70.0, 1: math.nan}, {0: 69.0, 1: 68.0})


@settings(deadline=None)
@given(several.filter(spread), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_mean_difference_is_scipys_one_sample_t_test(values, confidence):
    difference = mean_difference(values)
    expected = stats.ttest_1samp(values, 0)
    assert (difference.n, difference.df) == (len(values), len(values) - 1)
    assert difference.se == pytest.approx(stats.sem(values))
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert difference.interval(confidence) == pytest.approx(
        tuple(expected.confidence_interval(confidence)), abs=1e-9
    )


def test_a_paired_difference_is_scipys_paired_t_test():
    difference = paired_difference(dict(enumerate(TREATED)), dict(enumerate(CONTROL)))
    expected = stats.ttest_rel(TREATED, CONTROL)
    assert (difference.n, difference.mean) == (
        4,
        pytest.approx(np.subtract(TREATED, CONTROL).mean()),
    )
    assert difference.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert difference.p == pytest.approx(expected.pvalue)
    assert difference.p < 0.05
    assert difference.excludes_zero is True
    unpaired = stats.ttest_ind(TREATED, CONTROL).pvalue
    assert difference.p < unpaired / 2  # pairing removes the seeds' variance


def test_only_common_seeds_are_paired_whatever_their_order():
    treated = {2: 72.0, 0: 70.0, 7: 50.0, 1: 70.5}
    control = {0: 68.0, 9: 10.0, 1: 69.0, 2: 70.0}
    assert paired_difference(treated, control) == mean_difference([2.0, 1.5, 2.0])
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({}, {}) is None


@settings(deadline=None)
@given(several.filter(spread))
def test_swapping_the_sides_turns_the_sign_alone(values):
    treated, control = dict(enumerate(values)), dict.fromkeys(range(len(values)), 50.0)
    forward, back = paired_difference(treated, control), paired_difference(control, treated)
    assert back.mean == pytest.approx(-forward.mean)
    assert (back.se, back.df, back.p) == pytest.approx((forward.se, forward.df, forward.p))
    assert back.excludes_zero == forward.excludes_zero


@settings(deadline=None)
@given(several.filter(spread))
def test_the_95_interval_excludes_zero_exactly_where_p_is_below_5_percent(values):
    difference = mean_difference(value - 50 for value in values)
    assume(abs(difference.p - 0.05) > 1e-9)
    assert difference.excludes_zero == (difference.p < 0.05)
    low, high = difference.interval()
    assert difference.excludes_zero == (low > 0 or high < 0)


def test_the_difference_of_one_seed_has_no_interval():
    one = mean_difference([1.0])
    assert one == Difference(1, 1.0, None, None)
    assert (one.interval(), one.excludes_zero, one.p) == (None, None, None)
    assert mean_difference([]) is None


def test_equal_differences_are_certain():
    same, none = mean_difference([1.0, 1.0]), mean_difference([0.0, 0.0, 0.0])
    assert (same.interval(), same.excludes_zero, same.p) == ((1.0, 1.0), True, 0.0)
    assert (none.interval(), none.excludes_zero, none.p) == ((0.0, 0.0), False, 1.0)


def test_degrees_of_freedom_may_be_a_fraction():
    # Welch's: between the whole numbers' quantiles, 2.7764 and 2.5706 by the table.
    assert t_quantile(0.95, 4) == pytest.approx(2.7764, abs=1e-4)
    assert t_quantile(0.90, 4) == pytest.approx(2.1318, abs=1e-4)
    assert 2.5706 < t_quantile(0.95, 4.5) < 2.7764


@settings(max_examples=25, deadline=None)  # statsmodels collects garbage at each call
@given(st.lists(p_values, min_size=1, max_size=15))
def test_holm_is_that_of_statsmodels(values):
    expected = multipletests(values, method="holm")[1]
    assert holm(values) == pytest.approx(list(expected), abs=1e-15)


@settings(deadline=None)
@given(st.lists(p_values, max_size=15))
def test_holm_keeps_the_order_and_is_between_the_p_value_and_bonferronis(values):
    adjusted = holm(values)
    assert len(adjusted) == len(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(values))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [adjusted[place] for place in order] == sorted(adjusted)


def test_holm_by_hand():
    # Smallest first 0.01 · 4, 0.02 · 3, 0.03 · 2 = 0.06, 0.9 · 1.
    assert holm([0.03, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.0, 1.0]) == [0.0, 1.0]
