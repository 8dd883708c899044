"""Methods of a pair compared: paired, corrected for their number, the best one marked with care."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from report.statistics.intervals import summarise
from report.statistics.paired_tests import MethodComparison, best_method, compare_methods

PAIR = "resnet56--resnet20"
ACCURACY = {
    "student": {0: 69.0, 1: 69.4, 2: 68.9, 3: 69.2},
    "kd": {0: 70.6, 1: 71.1, 2: 70.4, 3: 70.9},
    "skd": {0: 71.0, 1: 71.6, 2: 70.8, 3: 71.2},
}
accuracies = st.integers(6_500, 7_500).map(lambda correct: correct / 100)
methods = st.dictionaries(
    st.sampled_from("abcdef"), st.dictionaries(st.integers(0, 5), accuracies), min_size=2
)


def means_of(accuracy) -> dict[str, float | None]:
    return {method: summarise(by_seed.values()).mean for method, by_seed in accuracy.items()}


def best_of(accuracy) -> str | None:
    return best_method(means_of(accuracy), compare_methods(PAIR, accuracy))


def test_every_two_methods_are_compared_by_the_paired_t_test_corrected_together():
    comparisons = compare_methods(PAIR, ACCURACY)
    assert [(c.a, c.b) for c in comparisons] == [
        ("student", "kd"),
        ("student", "skd"),
        ("kd", "skd"),
    ]
    values = {method: list(by_seed.values()) for method, by_seed in ACCURACY.items()}
    p = [stats.ttest_rel(values[c.a], values[c.b]).pvalue for c in comparisons]
    assert [c.p for c in comparisons] == pytest.approx(p)
    assert [c.p_holm for c in comparisons] == pytest.approx(
        list(multipletests(p, method="holm")[1])
    )
    for c in comparisons:
        assert c.pair == PAIR
        assert c.difference.mean == pytest.approx(np.subtract(values[c.a], values[c.b]).mean())


@settings(deadline=None)
@given(methods)
def test_only_common_seeds_count_and_one_seed_gives_no_test(accuracy):
    comparisons = {(c.a, c.b): c for c in compare_methods(PAIR, accuracy)}
    common = {(a, b): accuracy[a].keys() & accuracy[b].keys() for a, b in combinations(accuracy, 2)}
    assert comparisons.keys() == {pair for pair, seeds in common.items() if seeds}
    for (a, b), c in comparisons.items():
        seeds = common[a, b]
        assert c.difference.n == len(seeds)
        expected = np.mean([accuracy[a][seed] - accuracy[b][seed] for seed in seeds])
        assert c.difference.mean == pytest.approx(expected)
        assert (c.p is None) == (c.p_holm is None) == (len(seeds) == 1)
    tested = [c for c in comparisons.values() if c.p is not None]
    if tested:
        # Holm's smallest is the smallest times their number: those of one seed do not count.
        least = min(tested, key=lambda c: c.p)
        assert least.p_holm == pytest.approx(min(1, len(tested) * least.p))


def test_significant_is_by_the_corrected_p_value():
    comparison = compare_methods(PAIR, ACCURACY)[0]

    def with_p(p: float | None) -> MethodComparison:
        return MethodComparison(PAIR, "a", "b", comparison.difference, p=0.001, p_holm=p)

    assert with_p(0.049).significant
    assert not with_p(0.05).significant
    assert not with_p(0.3).significant
    assert not with_p(None).significant


def test_reversed_is_b_minus_a():
    forward = compare_methods(PAIR, ACCURACY)[0]
    swapped = {"kd": ACCURACY["kd"], "student": ACCURACY["student"], "skd": ACCURACY["skd"]}
    back = compare_methods(PAIR, swapped)[0]
    turned = forward.reversed()
    assert (turned.a, turned.b) == (back.a, back.b) == ("kd", "student")
    assert turned.difference.mean == pytest.approx(back.difference.mean)
    assert turned.difference.interval() == pytest.approx(back.difference.interval())
    assert (turned.p, turned.p_holm) == pytest.approx((back.p, back.p_holm))
    assert turned.reversed() == forward


def test_the_best_leads_each_other_one_significantly():
    assert best_of(ACCURACY) == "skd"
    # 0.4 ± 0.08 over KD is significant, but not if SKD's lead comes and goes with the seed.
    assert best_of({**ACCURACY, "skd": {0: 71.3, 1: 71.0, 2: 71.4, 3: 70.9}}) is None
    # A rival has the same mean: "skd" does not lead it.
    assert best_of({**ACCURACY, "rival": {0: 71.1, 1: 71.5, 2: 70.9, 3: 71.1}}) is None
    # Twelve equal weak methods: it leads them all, but there are many comparisons.
    many = {f"m{i}": {s: 60 + (7 * i + 3 * s) % 5 / 100 for s in range(4)} for i in range(12)}
    crowd = {**ACCURACY, **many}
    own = [c for c in compare_methods(PAIR, crowd) if "skd" in (c.a, c.b)]
    assert max(c.p for c in own) < 0.05
    assert best_of(crowd) is None


def test_nobody_is_best_without_intervals_or_rivals():
    assert best_of({method: {0: by_seed[0]} for method, by_seed in ACCURACY.items()}) is None
    assert best_of({**ACCURACY, "crd": {0: 60.0}}) is None  # one seed: not distinguishable
    assert best_of({**ACCURACY, "crd": {9: 60.0, 10: 60.1}}) is None  # no common seed
    assert best_of({**ACCURACY, "crd": {}}) == "skd"  # no runs: no rival yet
    assert best_of({"skd": ACCURACY["skd"]}) is None
    assert best_of({"skd": ACCURACY["skd"], "kd": {}}) is None
    assert best_of({}) is None


def test_the_best_leads_over_the_common_seeds_too():
    # By its mean of five seeds "a" leads; where both were run, "b" does, at each seed.
    a = {0: 70.0, 1: 70.1, 2: 70.2, 3: 79.0, 4: 79.0}
    b = {0: 71.0, 1: 71.1, 2: 71.21}
    (comparison,) = compare_methods(PAIR, {"a": a, "b": b})
    assert comparison.significant
    assert comparison.difference.mean < 0
    assert best_of({"a": a, "b": b}) is None
    assert best_of({"b": b, "a": a}) is None


@settings(deadline=None)
@given(methods)
def test_the_order_of_the_methods_is_nothing_to_the_best(accuracy):
    assert best_of(accuracy) == best_of(dict(reversed(accuracy.items())))


def test_of_equal_methods_one_is_marked_best_in_5_percent_of_pairs_at_most():
    """Five methods, five seeds, an effect of the seed that all share: the family-wise error."""
    rng = np.random.default_rng(7)
    repeats, marked, any_significant = 2_000, 0, 0
    for _ in range(repeats):
        values = rng.normal(70, 0.2, (5, 1)) + rng.normal(0, 0.2, (5, 5))  # seed × method
        accuracy = {f"m{i}": dict(enumerate(map(float, values[:, i]))) for i in range(5)}
        comparisons = compare_methods(PAIR, accuracy)
        marked += best_method(means_of(accuracy), comparisons) is not None
        any_significant += any(comparison.significant for comparison in comparisons)
    allowed = 0.05 + 4 * (0.05 * 0.95 / repeats) ** 0.5
    assert marked / repeats <= any_significant / repeats <= allowed
    assert any_significant > 0.01 * repeats


@pytest.mark.parametrize(("methods_", "seeds", "step"), [(10, 2, 0.02), (12, 3, 0.02)])
def test_equal_differences_on_a_grid_of_accuracies_are_not_certain(methods_, seeds, step):
    """Accuracies of few images are often equal: without the grid's own variance p would be 0."""
    rng = np.random.default_rng(9)
    repeats = 100
    wrong = {0.0: 0, step: 0}
    for _ in range(repeats):
        values = rng.normal(70, 0.2, (seeds, 1)) + rng.normal(0, 0.2, (seeds, methods_))
        values = np.round(values / step) * step
        accuracy = {f"m{i}": dict(enumerate(map(float, values[:, i]))) for i in range(methods_)}
        for resolution in wrong:
            comparisons = compare_methods(PAIR, accuracy, resolution)
            wrong[resolution] += any(one.significant for one in comparisons)
    assert wrong[step] <= (0.05 + 4 * (0.05 * 0.95 / repeats) ** 0.5) * repeats
    assert wrong[0.0] > wrong[step]


def test_a_method_that_is_better_is_mostly_found():
    rng = np.random.default_rng(8)
    detected = 0
    for _ in range(200):
        values = rng.normal(70, 0.5, (5, 1)) + rng.normal(0, 0.1, (5, 3)) + [0, 0, 0.6]
        accuracy = {f"m{i}": dict(enumerate(map(float, values[:, i]))) for i in range(3)}
        detected += best_of(accuracy) == "m2"
    assert detected > 150  # unpaired, the seeds' 0.5 would hide it
