"""Mean ranks, Friedman's test and Nemenyi's critical difference, against hand, scipy and Demšar."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from report.statistics.ranks import Ranking, rank_methods

# Demšar 2006, table 5a: q at 5 % for k methods.
DEMSAR = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 10: 3.164}
# Mean accuracy by method, then pair; p4 lacks methods.
ACCURACY = {
    "kd": {"p1": 70.0, "p2": 73.0, "p3": 60.0, "p4": 99.0},
    "student": {"p1": 69.0, "p2": 71.0, "p3": 61.0},
    "skd": {"p1": 71.0, "p2": 73.0, "p3": 62.0, "p4": 98.0},
}


def accuracy_of(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Return rows of pairs, columns of methods, as accuracy by method, then pair."""
    return {
        f"m{i}": {f"p{j}": float(value) for j, value in enumerate(column)}
        for i, column in enumerate(values.T)
    }


def draw(seed: int, pairs: int, methods: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(70, 1, (pairs, methods))


def test_mean_ranks_by_hand():
    # p1: skd 1, kd 2, student 3; p2: skd and kd share (1 + 2)/2, student 3; p3: skd, student, kd.
    ranks = rank_methods(ACCURACY)
    assert ranks.pairs == 3
    assert ranks.ranks == pytest.approx({"skd": 3.5 / 3, "kd": 6.5 / 3, "student": 8 / 3})
    assert list(ranks.ranks) == ["skd", "kd", "student"]


def test_means_that_differ_by_rounding_alone_share_a_rank():
    # The same two accuracies in the mean: (70.1 + 70.3)/2 and (70.2 + 70.2)/2.
    accuracy = {
        "a": {"p1": (70.1 + 70.3) / 2, "p2": 1.0},
        "b": {"p1": (70.2 + 70.2) / 2, "p2": 2.0},
    }
    assert accuracy["a"]["p1"] != accuracy["b"]["p1"]
    assert rank_methods(accuracy).ranks == {"b": 1.25, "a": 1.75}


tables = st.integers(2, 6).flatmap(
    lambda k: st.lists(
        st.lists(st.sampled_from([70.0, 70.1, 70.2, 71.0]), min_size=k, max_size=k),
        min_size=2,
        max_size=6,
    )
)


@settings(deadline=None)
@given(tables)
def test_a_rank_is_one_more_than_those_above_and_half_of_those_beside(table):
    values = np.array(table)
    ranks = rank_methods(accuracy_of(values))
    pairs, k = values.shape
    for i in range(k):
        above = (values > values[:, [i]]).sum()
        beside = (values == values[:, [i]]).sum() - pairs
        assert ranks.ranks[f"m{i}"] == pytest.approx(1 + (above + beside / 2) / pairs)
    assert sum(ranks.ranks.values()) == pytest.approx(k * (k + 1) / 2)
    assert list(ranks.ranks.values()) == sorted(ranks.ranks.values())


@pytest.mark.parametrize(("pairs", "methods"), [(2, 3), (6, 4), (13, 10)])
def test_friedmans_p_is_scipys(pairs, methods):
    values = draw(pairs, pairs, methods)
    values[0, 0] = values[0, 1]  # a tie
    expected = stats.friedmanchisquare(*values.T).pvalue
    assert rank_methods(accuracy_of(values)).p == pytest.approx(expected)


def test_friedman_by_hand_without_ties():
    # Ranks 1, 2, 3 in each of four pairs: χ² = 12·4/(3·4)·(1 + 4 + 9 − 3·4²/4) = 8, 2 degrees.
    values = np.tile([3.0, 2.0, 1.0], (4, 1)) + np.arange(4)[:, None]
    assert rank_methods(accuracy_of(values)).p == pytest.approx(math.exp(-8 / 2))


def test_two_methods_have_no_friedman_and_equal_ones_no_p():
    assert rank_methods(accuracy_of(draw(0, 5, 2))).p is None
    same = rank_methods(accuracy_of(np.full((4, 3), 70.0)))
    assert same.p is None
    assert set(same.ranks.values()) == {2.0}
    assert same.cliques() == [("m0", "m1", "m2")]


@pytest.mark.parametrize(("k", "q"), DEMSAR.items())
@pytest.mark.parametrize("pairs", [2, 13])
def test_the_critical_difference_is_demsars(k, q, pairs):
    ranks = rank_methods(accuracy_of(draw(1, pairs, k)))
    expected = q * math.sqrt(k * (k + 1) / (6 * pairs))
    assert ranks.critical_difference == pytest.approx(expected, rel=3e-4)  # q has 3 decimals


def test_demsars_own_example():
    """Four classifiers on 14 data sets, CD = 2.569·√(4·5/(6·14)) = 1.25: no two differ."""
    ranks = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    cd = rank_methods(accuracy_of(draw(2, 14, 4))).critical_difference
    assert cd == pytest.approx(1.25, abs=0.005)
    ordered = dict(sorted(ranks.items(), key=lambda item: item[1]))
    assert Ranking(14, ordered, None, cd).cliques() == [tuple(ordered)]


def test_cliques_are_the_largest_groups_within_the_critical_difference():
    def cliques(*ranks: float) -> list[str]:
        named = dict(zip("abcdef", ranks, strict=False))
        return ["".join(group) for group in Ranking(5, named, None, 1.0).cliques()]

    assert cliques(1.0, 1.5, 1.9) == ["abc"]
    assert cliques(1.0, 1.5, 2.2, 2.4, 5.0) == ["ab", "bcd"]  # b's group contains c and d
    assert cliques(1.0, 2.0) == []  # a distance equal to the critical difference: distinguishable
    assert cliques(1.0, 3.0, 3.5) == ["bc"]
    assert cliques(1.0, 1.9, 2.8, 3.7) == ["ab", "bc", "cd"]


@settings(deadline=None)
@given(st.lists(st.integers(10, 60), min_size=2, max_size=6), st.sampled_from([0.5, 1.05, 2.05]))
def test_two_methods_share_a_clique_exactly_if_they_do_not_differ_significantly(tenths, cd):
    ranks = dict(zip("abcdef", sorted(tenth / 10 for tenth in tenths), strict=False))
    groups = Ranking(5, ranks, None, cd).cliques()
    for a in ranks:
        for b in ranks:
            together = a != b and any(a in group and b in group for group in groups)
            assert together == (a != b and abs(ranks[a] - ranks[b]) < cd)
    assert not [g for g in groups for other in groups if g != other and set(g) <= set(other)]


def test_pairs_that_a_method_lacks_are_left_out():
    both = {method: ACCURACY[method] for method in ("kd", "skd")}
    assert rank_methods(both).pairs == 4
    assert rank_methods(both).ranks == pytest.approx({"skd": 5.5 / 4, "kd": 6.5 / 4})
    assert rank_methods(ACCURACY).pairs == 3


def test_there_is_no_ranking_below_two_methods_or_two_pairs():
    assert rank_methods({}) is None
    assert rank_methods({"kd": ACCURACY["kd"]}) is None
    assert rank_methods({"kd": {"p1": 70.0}, "skd": {"p1": 71.0}}) is None
    assert rank_methods({"kd": {"p1": 70.0, "p2": 1.0}, "skd": {"p1": 71.0, "p3": 1.0}}) is None
    assert rank_methods({"kd": ACCURACY["kd"], "skd": {}}) is None


@pytest.mark.parametrize("methods", [3, 5])
def test_nemenyi_distinguishes_equal_methods_in_5_percent_of_studies(methods):
    """By simulation: thirteen pairs, ranks at random; the largest difference of mean ranks."""
    cd = rank_methods(accuracy_of(draw(3, 13, methods))).critical_difference
    ranks = np.random.default_rng(4).random((20_000, 13, methods)).argsort(axis=2).mean(axis=1)
    told_apart = (np.ptp(ranks, axis=1) >= cd).mean()
    assert 0.02 < told_apart <= 0.055
