"""Each sentence of the answer, in every case that its wording distinguishes."""

from dataclasses import replace

import pytest

from report.frames.averages import average_difference, average_gains, comparable
from report.headline import make_headline
from report.names import Names
from report.statistics.paired_tests import compare_methods
from tests.builders.findings import make_pair

NAMES = Names({"kd": "KD", "dkd": "DKD", "crd": "CRD", "skd": "SKD"}, {"resnet56": "ResNet-56"})
ALONE = [69.0, 69.5, 70.0]


def shifted(points: float, spread: float = 0.05) -> list[float]:
    """Return accuracies that are this much above the student alone, almost in every seed."""
    return [alone + points + spread * sign for alone, sign in zip(ALONE, (-1, 0, 1), strict=True)]


def make(*pairs, methods=None, outcomes=None, margin=0.5):
    methods = methods or list(dict.fromkeys(c.method for pair in pairs for c in pair.cells))
    return make_headline(pairs, methods, outcomes or {"done": 9}, margin, NAMES)


def lead(*pairs, **options) -> str:
    return make(*pairs, **options).lead


# One pair.

GAINS = {
    # every method
    "Every method beats the student alone; DKD helps most: 72.5 % against 69.5 %.": {
        "kd": 1.0, "dkd": 3.0, "crd": 2.0,
    },
    "Every method is worse than the student alone; KD comes closest: 68.5 % against 69.5 %.": {
        "kd": -1.0, "dkd": -3.0, "crd": -2.0,
    },
    # some are worse, which is said; names up to two, then counts
    "DKD and KD beat the student alone, and CRD is worse; DKD helps most: 72.5 % against 69.5 %.": {
        "kd": 1.0, "dkd": 3.0, "crd": -1.0,
    },
    "3 of 4 methods beat the student alone, and e is worse; d helps most: 73.5 % against 69.5 %.": {
        "kd": 1.0, "crd": 2.0, "d": 4.0, "e": -1.0,
    },
    "a beats the student alone (70.5 % against 69.5 %), and 3 are worse.": {
        "a": 1.0, "b": -1.0, "c": -2.0, "d": -3.0,
    },
    # one method
    "KD beats the student alone: 70.5 % against 69.5 %.": {"kd": 1.0},
    "KD is worse than the student alone: 68.5 % against 69.5 %.": {"kd": -1.0},
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "points"), GAINS.items(), ids=range(len(GAINS)))
def test_one_pair(sentence, points):
    pair = make_pair({"student": ALONE, **{m: shifted(gain) for m, gain in points.items()}})
    assert lead(pair) == sentence


def test_unclear_gains_are_neither_better_nor_worse():
    noisy = {"kd": shifted(0.1, 2.0), "dkd": shifted(0.3, 2.0)}
    assert lead(make_pair({"student": ALONE, **noisy})) == (
        "No method is clearly better or worse than the student alone; DKD has the highest "
        "accuracy: 69.8 % against 69.5 %."
    )
    one = make_pair({"student": ALONE, "kd": noisy["kd"]})
    assert lead(one).startswith("KD is not clearly better or worse than the student alone: 69.6 %")
    some = make(make_pair({"student": ALONE, "crd": shifted(3.0), **noisy}))
    assert some.lead == ("CRD clearly beats the student alone (72.5 % against 69.5 %).")
    (listed,) = (text for text in some.fine_print if "Not clearly better" in text)
    assert "Not clearly better or worse than the student alone: DKD (+0.30) and KD (+0.10)" in (
        listed
    )
    worse = lead(make_pair({"student": ALONE, "crd": shifted(-3.0), **noisy}))
    assert worse.startswith("No method clearly beats the student alone, and CRD is worse; DKD has")


def test_methods_that_are_level_share_the_lead():
    level = {"dkd": shifted(3.0), "crd": shifted(2.99, -0.05)}
    assert lead(make_pair({"student": ALONE, "kd": shifted(1.0), **level})).endswith(
        "DKD and CRD help most: 72.5 % and 72.5 % against 69.5 %."
    )
    third = make_pair({"student": ALONE, **level, "kd": shifted(2.98, 0.1)})
    assert lead(third).endswith("DKD has the highest accuracy: 72.5 % against 69.5 %.")


def test_one_seed_is_above_or_below_and_never_better():
    def of(**gains: float) -> str:
        cells = {method: [70.0 + gain] for method, gain in gains.items()}
        return lead(make_pair({"student": [70.0], **cells}, expected=1))

    above = "With one seed, every method is above the student alone; DKD has the highest accuracy"
    assert of(kd=1, dkd=2) == f"{above}: 72.0 % against 70.0 %."
    assert of(kd=1, dkd=-2).startswith("With one seed, KD is above the student alone (71.0 %")
    below = "With one seed, no method is above the student alone; KD comes closest"
    assert of(kd=-1, dkd=-2) == f"{below}: 69.0 % against 70.0 %."
    assert of(kd=1) == "With one seed, KD is above the student alone: 71.0 % against 70.0 %."
    assert of(kd=0).startswith("With one seed, KD is level with the student alone")


def test_an_unfinished_study_answers_so_far():
    pair = make_pair({"student": ALONE, "mine": shifted(1.0)})
    unfinished = lead(pair, outcomes={"done": 6, "missing": 3})
    assert unfinished.startswith("So far, mine beats the student alone: 70.5 %")
    assert lead(pair).startswith("mine beats")  # a name keeps its case


# Several pairs.


def test_several_pairs_are_averaged():
    first = make_pair({"student": ALONE, "kd": shifted(1.0), "dkd": shifted(3.0)})
    second = make_pair({"student": ALONE, "kd": shifted(3.0), "dkd": shifted(4.0)}, "vgg13")
    assert lead(first, second) == (
        "Averaged over 2 pairs, every method beats the student alone; DKD helps most: 73.0 % "
        "against 69.5 %."
    )
    empty = make_pair({"student": {}, "kd": {}, "dkd": {}}, "wrn_40_2")
    started = lead(first, second, empty, outcomes={"done": 18, "missing": 9})
    assert started.startswith("So far, averaged over 2 of 3 pairs, every method beats")
    assert lead(first, empty, outcomes={"done": 9, "missing": 9}).startswith(
        "So far, on ResNet-56 → resnet20, every method beats the student alone"
    )


def test_a_method_that_gains_on_its_pair_alone_is_not_passed_over():
    losing = {"student": ALONE, "kd": shifted(-1.0), "dkd": shifted(-2.0)}
    first = make_pair({**losing, "crd": shifted(1.2)})
    second = make_pair(losing, "vgg13")
    headline = make(first, second)
    assert headline.lead == (
        "Averaged over 2 pairs, each of the 2 methods in all pairs is worse than the student "
        "alone; on ResNet-56 → resnet20, CRD gains 1.20 points."
    )
    assert any("Gains on ResNet-56 → resnet20 alone, in points: CRD +1.20" in text
               for text in headline.fine_print)  # fmt: skip
    chance = make_pair({**losing, "crd": shifted(1.2, 3.0)})
    assert lead(chance, second).endswith("CRD gains 1.20 points, which may be chance.")
    one_seed = {"student": [70.0], "kd": [69.0]}
    first, second = make_pair({**one_seed, "crd": [71.5]}), make_pair(one_seed, "vgg13")
    assert lead(first, second).startswith("Averaged over 2 pairs with one seed, ")
    assert lead(first, second).endswith("CRD gains 1.50 points.")  # and no second reservation
    # A smaller gain than the best average is left to the fine print.
    gaining = {"student": ALONE, "kd": shifted(2.0)}
    small = make_pair({**gaining, "crd": shifted(1.0)})
    assert lead(small, make_pair(gaining, "vgg13")) == (
        "Averaged over 2 pairs, KD beats the student alone: 71.5 % against 69.5 %."
    )


def test_a_method_that_is_not_finished_everywhere_is_not_ranked():
    first = make_pair({"student": ALONE, "kd": shifted(1.0), "crd": shifted(9.0)})
    second = make_pair({"student": ALONE, "kd": shifted(1.0), "crd": {}}, "vgg13")
    headline = make(first, second, outcomes={"done": 15, "missing": 3})
    assert headline.lead.startswith("So far, averaged over 2 pairs, KD beats the student alone; on")
    assert "Not ranked because runs are not finished: CRD." in " ".join(headline.fine_print)
    assert [gain.a for gain in comparable(average_gains((first, second), ["kd", "crd"]))] == ["kd"]


def test_averages_are_over_common_seeds():
    first = make_pair({"student": [70.0, 71.0], "kd": [71.0, 73.0]})
    second = make_pair({"student": {0: 60.0, 2: 61.0}, "kd": {0: 63.0, 2: 65.0}}, "vgg13")
    average = average_difference((first, second), "kd", "student")
    assert average.by_seed == pytest.approx({0: 2.0})
    assert average.accuracies == pytest.approx((67.0, 65.0))
    assert average_difference((first,), "kd", "dkd") is None


# Without a student alone, without runs, without methods.


def test_without_the_student_alone_gains_are_unknown():
    unknown = "The study does not train the student alone, so the methods' gains are unknown"
    both = {"kd": [70.0, 70.2], "dkd": [71.0, 71.2]}
    assert lead(make_pair(both)) == f"{unknown}; DKD has the highest accuracy, 71.1 %."
    assert lead(make_pair(both), make_pair({"kd": [80.0]}, "vgg13")) == (
        f"{unknown}; KD has an accuracy of 75.0 % on average over 2 pairs."
    )
    assert lead(make_pair({"kd": [70.0], "dkd": {}}), make_pair({"dkd": [1.0]}, "vgg13")) == (
        f"{unknown}."
    )


def test_without_runs_or_methods_or_common_seeds_there_is_no_answer():
    empty = make_pair({"student": {}, "kd": {}})
    assert lead(empty, outcomes={"missing": 6}) == (
        "No run has finished yet, so there are no results."
    )
    assert "no method to compare it with" in lead(make_pair({"student": ALONE}))
    apart = make_pair({"student": {0: 70.0}, "kd": {1: 71.0}})
    assert lead(apart).startswith("No method can be compared with the student alone yet")


# Published values.


@pytest.mark.parametrize(
    ("published", "sentence"),
    [
        ({"kd": 70.5}, "The published value is reproduced within 0.5 points."),
        ({"kd": 69.0}, "The published value is not reproduced: ours is higher."),
        ({"kd": 72.0}, "The published value is not reproduced: ours is lower."),
        ({"wide": 71.0}, "Whether the published value is reproduced is undecided."),
        ({"kd": 70.5, "dkd": 72.5}, "Both published values are reproduced within 0.5 points."),
        ({"kd": 70.5, "dkd": 72.5, "crd": 71.5},
         "All 3 published values are reproduced within 0.5 points."),
        ({"kd": 70.5, "dkd": 70.0, "wide": 71.0},
         "1 of 3 published values is reproduced within 0.5 points; ours is higher for 1, and 1 is "
         "inconclusive."),
        ({"kd": 70.5, "dkd": 72.5, "crd": 75.0},
         "2 of 3 published values are reproduced within 0.5 points; ours is lower for 1."),
        ({"kd": 69.0, "dkd": 75.0},
         "None of the 2 published values is reproduced within 0.5 points; ours is higher for 1 and "
         "lower for 1."),
        ({"kd": 70.5, "later": 71.0},
         "The published value is reproduced within 0.5 points; 1 more has no finished run."),
    ],
)  # fmt: skip
def test_verdicts_come_first(published, sentence):
    accuracies = {
        "student": [69.45, 69.5, 69.55], "kd": [70.45, 70.5, 70.55], "dkd": [72.45, 72.5, 72.55],
        "crd": [71.45, 71.5, 71.55], "wide": [68.0, 71.0, 74.0], "later": {},
    }  # fmt: skip
    headline = make(make_pair(accuracies, published=published))
    assert headline.lead == sentence
    assert len(headline.points) == 1
    assert headline.points[0].startswith("3 of 4 methods clearly beat the student alone; DKD")


def test_published_values_without_runs_are_no_answer():
    pair = make_pair({"student": ALONE, "kd": shifted(1.0), "dkd": {}}, published={"dkd": 71.0})
    assert lead(pair).startswith("KD beats the student alone")


# The fine print.


def test_the_fine_print_has_intervals_and_what_skd_adds():
    pair = make_pair(
        {"student": ALONE, "kd": shifted(1.0), "skd": shifted(1.5), "skd+kd": shifted(2.0)}
    )
    text = " ".join(make(pair).fine_print)
    assert "SKD + KD is 2.00 points better than the student alone (95 % interval +1.8" in text
    assert "3 paired seeds). Its lead over the second, SKD, is 0.50 points (" in text
    assert "Adding SKD changes, in points, KD by +1.00 (" in text
    assert "SKD minus KD: +0.50 points (" in text
    assert "without a correction for the number of methods" in text
    assert "for this pair and teacher only" in text
    worse = " ".join(make(make_pair({"student": ALONE, "kd": shifted(-1.0, 3.0)})).fine_print)
    assert "KD is 1.00 points worse than the student alone" in worse
    assert "3 paired seeds), which may be chance." in worse
    for points, relation in (
        (1.0, "1.00 points above"),
        (-1, "1.00 points below"),
        (0, "level with"),
    ):
        one_seed = make_pair({"student": [70.0], "kd": [70.0 + points]}, expected=1)
        text = f"KD is {relation} the student alone (one seed, no interval)."
        assert text in make(one_seed).fine_print


def test_the_fine_print_has_what_holms_correction_leaves():
    def fine_print(methods: dict[str, list[float]], *others) -> str:
        accuracies = {"student": ALONE, **methods}
        pair = make_pair(accuracies)
        by_seed = {method: dict(enumerate(values)) for method, values in accuracies.items()}
        tested = replace(pair, comparisons=compare_methods(pair.pair, by_seed))
        return " ".join(make(tested, *others).fine_print)

    noisy = shifted(3.0, 1.0)  # p = 0.036 before the correction
    after = "After Holm's correction over all 3 comparisons, "
    assert f"{after}only KD differs significantly" in fine_print({"kd": shifted(3.0), "dkd": noisy})
    assert f"{after}no method differs" in fine_print({"kd": noisy, "dkd": noisy[::-1]})
    assert f"{after}every method differs" in fine_print({"kd": shifted(3.0), "dkd": shifted(5.0)})
    assert "correction" not in fine_print({"kd": shifted(3.0)})
    several = fine_print({"kd": noisy, "dkd": noisy}, make_pair({"student": ALONE}, "vgg13"))
    assert "After Holm's" not in several
    assert "the p-values of the comparisons within a pair are corrected" in several
    assert "for these pairs and teachers only" in several


def test_without_an_effect_of_the_simplifier_adding_skd_is_adding_kd():
    methods = ("student", "kd", "dkd", "skd+kd", "skd+dkd")
    pair = make_pair({method: shifted(place) for place, method in enumerate(methods)})

    def added(unmoved: dict[str, str]) -> str:
        headline = make_headline((pair,), methods, {"done": 9}, 0.5, NAMES, unmoved)
        (text,) = (text for text in headline.fine_print if text.startswith("Adding SKD"))
        return text.split(" changes")[0]

    twice = {"skd+kd": "twice"}
    assert added({}) == added(twice) == "Adding SKD"  # an effect on DKD is not excluded
    assert added({**twice, "skd+dkd": "adds KD"}) == "Adding SKD (here: adding KD's term)"
    assert added({**twice, "skd+dkd": "same"}) == (
        "Adding SKD (here: adding KD's term, and nothing to DKD)"
    )


def test_skds_missing_numbers_are_named_where_others_are_published():
    missing = "The SKD paper's own numbers are not available"
    accuracies = {"student": ALONE, "kd": shifted(1.0)}
    without = make(make_pair(accuracies, published={"kd": 70.0}))
    assert not any(missing in text for text in without.fine_print)
    with_skd = make(make_pair({**accuracies, "skd": shifted(1)}, published={"kd": 70.0}))
    assert any(text.startswith(missing) for text in with_skd.fine_print)
