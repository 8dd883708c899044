"""Settings in which methods differ: SKD's variants, their assumptions, the temperatures."""

from functools import cache

import pytest
import yaml

from baselines.simplifier import SimplifierSettings
from report.frames.method_variants import (
    SIMPLIFIER_ASSUMPTIONS,
    method_variants,
    run_specs,
    setting_curves,
    temperature_groups,
)
from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion
from tests.builders import tiny

PAIR = ("resnet56", "resnet20")
# The shipped study's variants of SKD, by hand from its sheet and docs/assumptions.md.
ASSUMPTIONS = {
    "softening-only": ("control",),
    "simplifier-only": ("A1",),
    "frozen": ("control", "A4"),
    "not-zero-initialised": ("A4",),
    "softening-scaled": ("A1",),
    "softening-softmax": ("A1",),
    "axis-classes": ("A2", "A3"),
    "heads-2": ("A3",),
    "heads-4": ("A3",),
    "no-layer-norm": ("A3",),
    "no-residual": ("A4",),
    "rows-added": ("A4",),
    "rows-mean": ("A4",),
    "rows-alone": ("A4",),
    "anchored": ("A6",),
    "T-1": ("A1", "A5"),
    "T-2": ("A1", "A5"),
    "T-8": ("A1", "A5"),
    "weight-0.5": ("A5",),
    "weight-2": ("A5",),
    "weights-1-1": ("A5",),
    "rate-0.0001": ("A6",),
    "rate-0.001": ("A6",),
    "rate-0.01": ("A6",),
    "rate-0.1": ("A6",),
    "rate-1": ("A6",),
}
# Methods of another sheet: temperatures of KD and SKD, with equal or other settings.
METHODS = [
    "student",
    "kd",
    "skd",
    "skd+kd",
    "skd+dkd",
    "skd+crd",
    {"name": "kd-8", "like": "kd", "settings": {"kd": {"temperature": 8}}},
    {"name": "kd-2", "like": "kd", "settings": {"kd": {"temperature": 2}}},
    {"name": "kd-2-light", "like": "kd", "settings": {"kd": {"temperature": 2, "weight": 0.5}}},
    {"name": "loss-2", "like": "skd", "settings": {"kd": {"temperature": 2}}},
    {"name": "softening-2", "like": "skd", "settings": {"simplifier": {"temperature": 2}}},
    {
        "name": "both-2",
        "like": "skd",
        "settings": {"kd": {"temperature": 2}, "simplifier": {"temperature": 2}},
    },
    {"name": "same", "like": "skd", "settings": {"simplifier": {"heads": 1}}},
    {"name": "twice", "terms": [{"term": "kd"}, {"term": "kd", "temperature": 2}]},
    {"name": "twice-9", "terms": [{"term": "kd"}, {"term": "kd", "temperature": 9}]},
]

shipped = cache(expand_study)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Expansion:
    names = [method if isinstance(method, str) else method["name"] for method in METHODS]
    others = [name for name in names if name not in ("student", "kd", "kd-2")]
    sheet = {
        "title": "A test",
        "dataset": {"name": "synthetic"},
        "recipe": {"epochs": 1, "milestones": []},
        "settings": {"dkd": {"warmup_epochs": 20}},
        "teachers": {"big": {"network": "resnet20", "train": {"seed": 0}}},
        "pairs": [
            {"teacher": "big", "student": "resnet8"},
            {"teacher": "big", "student": "resnet14", "without": others},
        ],
        "methods": METHODS,
        "seeds": 1,
    }
    folder = tmp_path_factory.mktemp("studies")
    (folder / "own.yaml").write_text(yaml.safe_dump(sheet, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKD_STUDIES", str(folder))
        return expand_study("own")


def varied(study: Expansion, base: str, pair=("big", "resnet8")) -> dict:
    return {variant.method: variant for variant in method_variants(study, *pair, base)}


@pytest.mark.parametrize("pair", [PAIR, ("wrn_40_2", "ShuffleV1")], ids="--".join)
def test_the_ablations_methods_are_skds_variants_each_of_its_assumptions(pair):
    variants = method_variants(shipped("ablation"), *pair, "skd")
    assert {variant.method: variant.assumptions for variant in variants} == ASSUMPTIONS
    assert [variant.method for variant in variants] == list(ASSUMPTIONS)  # the sheet's order
    assert {variant.base for variant in variants} == {"skd"}


def test_a_variant_says_what_it_changes_and_nothing_else():
    changes = {v.method: v.changes for v in method_variants(shipped("ablation"), *PAIR, "skd")}
    assert changes["heads-4"] == (("simplifier", "heads", 1, 4),)
    assert changes["rate-0.1"] == (("simplifier", "learning_rate_multiplier", 0.00001, 0.1),)
    assert set(changes["T-8"]) == {
        ("simplifier", "temperature", 4, 8),
        ("kd on simplified", "temperature", 4, 8),
    }
    assert set(changes["weights-1-1"]) == {
        ("kd on simplified", "weight", 0.9, 1),
        ("cross_entropy", "weight", 0.1, 1),
    }
    assert set(changes["axis-classes"]) == {
        ("simplifier", "axis", "batch", "classes"),
        ("simplifier", "width", None, 16),
    }


def test_every_setting_of_the_simplifier_belongs_to_an_assumption():
    assert SIMPLIFIER_ASSUMPTIONS.keys() == SimplifierSettings.model_fields.keys()
    assert set(SIMPLIFIER_ASSUMPTIONS.values()) == {"A1", "A2", "A3", "A4", "A6", "A7", "control"}


def test_sums_with_skd_and_other_teachers_logits_are_not_variants(own):
    assert set(varied(own, "skd")) == {"loss-2", "softening-2", "both-2", "same"}
    assert varied(own, "skd")["same"].changes == ()
    assert varied(own, "skd")["same"].assumptions == ()
    assert varied(own, "skd")["loss-2"].assumptions == ("A5",)
    assert varied(own, "skd")["softening-2"].assumptions == ("A1",)
    assert varied(own, "skd+kd") == varied(own, "skd+dkd") == {}
    assert method_variants(shipped("cifar100"), *PAIR, "skd") == []


def test_any_method_has_variants_and_a_missing_one_has_none(own):
    assert set(varied(own, "kd")) == {"kd-8", "kd-2", "kd-2-light"}
    assert varied(own, "kd")["kd-2"].changes == (("kd", "temperature", 4, 2),)
    assert varied(own, "kd")["kd-2"].assumptions == ("A5",)
    assert varied(own, "dkd") == {}
    assert varied(own, "skd", ("big", "resnet14")) == {}  # the pair lacks the method


def test_a_term_that_occurs_twice_gets_two_names(own):
    assert varied(own, "twice")["twice-9"].changes == (("kd #2", "temperature", 2, 9),)
    assert set(varied(own, "twice")) == {"twice-9"}


def test_the_ablations_temperatures_are_one_group():
    for pair in shipped("ablation").pairs:
        (group,) = temperature_groups(shipped("ablation"), *pair)
        assert list(group.items()) == [(1, "T-1"), (2, "T-2"), (4, "skd"), (8, "T-8")]


def test_methods_are_grouped_where_they_differ_in_temperature_alone(own):
    # Not in a group: another weight, separate temperatures, two temperatures, CRD's 0.07.
    groups = temperature_groups(own, "big", "resnet8")
    assert [list(group.items()) for group in groups] == [
        [(2, "kd-2"), (4, "kd"), (8, "kd-8")],
        [(2, "both-2"), (4, "skd")],
    ]
    assert temperature_groups(own, "big", "resnet14") == [{2: "kd-2", 4: "kd"}]


def test_without_a_second_temperature_there_is_no_group():
    assert temperature_groups(shipped("cifar100"), *PAIR) == []


def test_a_pairs_methods_are_those_it_has_with_its_own_settings(own):
    assert list(run_specs(own, "big", "resnet14")) == ["student", "kd", "kd-2"]
    assert len(run_specs(own, "big", "resnet8")) == len(METHODS)
    specs = run_specs(shipped("cifar100"), "ResNet50", "vgg8")
    (dkd,) = (term for term in specs["dkd"].method.terms if term.term == "dkd")
    assert dkd.settings["beta"] == 8
    assert (specs["kd"].method.simplifier, specs["skd"].method.simplifier is None) == (None, False)


def test_a_sweep_is_a_curve_with_the_method_that_has_its_base_value():
    pair = ("teacher", "resnet8")
    methods = [
        "skd",
        {"name": "T", "like": "skd", "sweep": {"simplifier.temperature": [8, 1, 4, 0.5]}},
        {"name": "heads", "like": "skd", "sweep": {"simplifier.heads": [1, 2]}},
        {"name": "rate", "like": "skd", "sweep": {"recipe.learning_rate": [0.01, 0.1]}},
        {"name": "kd", "sweep": {"kd.temperature": [1, 2, 3], "kd.weight": [1, 2, 3]}},
    ]
    swept = tiny.study(methods=methods)
    curves = setting_curves(swept, *pair)
    assert [(curve.label, dict(curve.methods)) for curve in curves] == [
        ("simplifier: temperature", {0.5: "T-0.5", 1: "T-1", 4: "skd", 8: "T-8"}),
        ("recipe: learning rate", {0.01: "rate-0.01", 0.05: "skd", 0.1: "rate-0.1"}),
        *(("kd: weight", {w: f"kd-{t}-{w}" for w in (1, 2, 3)}) for t in (1, 2, 3)),
    ]
    # The sweep of KD's temperature is the temperatures' own figure.
    assert {1: "kd-1-1", 2: "kd-2-1", 3: "kd-3-1"} in temperature_groups(swept, *pair)
    variants = {v.method: v for v in method_variants(swept, *pair, "skd")}
    assert variants["rate-0.1"].changes == (("recipe", "learning_rate", 0.05, 0.1),)
    assert variants["rate-0.1"].assumptions == ()


def test_the_ablation_has_curves_and_the_main_study_has_none():
    labels = [curve.label for curve in setting_curves(shipped("ablation"), *PAIR)]
    assert labels == [
        "kd on simplified: weight",
        "simplifier: learning rate multiplier",
        "simplifier: heads",
    ]
    assert setting_curves(shipped("cifar100"), *PAIR) == []
