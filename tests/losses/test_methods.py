"""A method's name or terms become weighted sums of terms; mistakes are reported."""

from __future__ import annotations

import math
from typing import Any

import pytest

from skd.losses.methods import method_names
from skd.study.sheet import StudyError
from tests.builders.objectives import chosen, terms


def test_method_names_are_the_listed_ones_and_the_terms():
    assert {"student", "skd", "kd"} <= set(method_names())
    assert "cross_entropy" not in method_names()


# Methods as a sheet describes them.


def test_terms_written_out_are_the_named_method():
    by_hand = chosen({"terms": [{"term": "kd", "teacher": "simplified"}], "simplifier": {}})
    assert by_hand == chosen("skd") == chosen({"like": "skd"})
    both = [{"term": "kd", "teacher": teacher} for teacher in ("simplified", "raw")]
    assert chosen({"terms": both, "simplifier": {}}) == chosen("skd+kd")


def test_a_written_cross_entropy_weight_wins_over_the_largest():
    written = [{"term": "kd"}, {"term": "cross_entropy", "weight": 0.03}]
    assert terms(chosen({"terms": written}))[0] == ("cross_entropy", 0.03, "raw")
    own = {"like": "skd+kd", "settings": {"cross_entropy": {"weight": 0.7}}}
    assert terms(chosen(own))[0] == ("cross_entropy", 0.7, "raw")
    largest = [{"term": "kd"}, {"term": "kd", "temperature": 1, "cross_entropy": 0.6}]
    assert terms(chosen({"terms": largest}))[0] == ("cross_entropy", 0.6, "raw")


def test_settings_come_from_the_study_then_the_written_term_then_the_method():
    def temperature(written: bool, own: bool, **shared: Any) -> float:
        method: dict[str, Any] = {"terms": [{"term": "kd"}]}
        if written:
            method["terms"][0]["temperature"] = 3
        if own:
            method["settings"] = {"kd": {"temperature": 5}}
        return chosen(method, **shared).terms[1].settings["temperature"]

    study = {"kd": {"temperature": 2, "weight": 0.5}}
    assert temperature(False, False) == 4
    assert temperature(False, False, **study) == 2
    assert temperature(True, False, **study) == 3
    assert temperature(True, True, **study) == 5
    assert temperature(False, True, **study) == 5
    assert terms(chosen("skd+kd", **study))[1:] == [("kd", 0.5, "simplified"), ("kd", 0.5, "raw")]


def test_simplifier_settings_take_the_same_precedence():
    def heads(method: dict[str, Any], **shared: Any) -> int:
        return chosen({"like": "skd", **method}, **shared).simplifier.settings["heads"]

    study = {"simplifier": {"heads": 2}}
    assert heads({}) == 1
    assert heads({}, **study) == 2
    assert heads({"simplifier": {"heads": 3}}, **study) == 3
    own = {"settings": {"simplifier": {"heads": 5}}}
    assert heads({"simplifier": {"heads": 3}, **own}, **study) == 5
    assert chosen("kd", **study).simplifier is None


@pytest.mark.parametrize(
    ("method", "shared", "words"),
    [
        ("skdd", {}, ("unknown method 'skdd'", "did you mean 'skd'", "student", "kd")),
        ("skd+nothing", {}, ("unknown method 'nothing'", "student", "skd", "kd")),
        ({"like": "nothing"}, {}, ("unknown method 'nothing'", "student", "skd")),
        ({"terms": [{"term": "kdd"}]}, {}, ("unknown term 'kdd'", "cross_entropy", "kd")),
        ({"terms": [{"temperature": 1}]}, {}, ("unknown term", "cross_entropy", "kd")),
        ({"terms": [{"term": "kd", "temp": 1}]}, {}, ("'temp'", "temperature", "weight")),
        ("kd", {"kd": {"temp": 1}}, ("'temp'", "temperature", "weight")),
        ("kd", {"kdd": {"temperature": 1}}, ("'kdd'", "kd", "simplifier")),
        ("kd", {"kd": {"temperature": -1}}, ("kd", "temperature", "-1")),
        ({"like": "kd", "settings": {"kdd": {}}}, {}, ("'kdd'", "kd", "simplifier")),
        ({"like": "skd", "simplifier": {"head": 1}}, {}, ("'head'", "heads", "width")),
        ("skd", {"simplifier": {"axis": "rows"}}, ("axis", "'batch'", "'classes'")),
        ({"like": "kd", "terms": [{"term": "kd"}]}, {}, ("'terms'", "'like'")),
        ({"like": "kd", "simplifier": {}}, {}, ("simplifier", "teacher: simplified")),
        (
            {"terms": [{"term": "kd", "teacher": "simplifid"}]},
            {},
            ("unknown transformation 'simplifid'", "did you mean 'simplified'", "raw"),
        ),
        ("kd", {"kd": {"teacher": "soft"}}, ("unknown transformation 'soft'", "simplified")),
        (
            {"like": "kd", "transformations": {"kd": {}}},
            {},
            ("unknown transformation 'kd'", "simplifier"),
        ),
        (
            {"like": "skd", "simplifier": {}, "transformations": {"simplifier": {}}},
            {},
            ("'simplifier'", "'transformations'"),
        ),
        ("kd", {"kd": {"weight": -0.5}}, ("weight", "-0.5")),
        ("kd", {"kd": {"weight": math.nan}}, ("weight", "nan")),
        ("kd", {"kd": {"weight": math.inf}}, ("weight", "inf")),
        ("kd", {"kd": {"temperature": math.inf}}, ("temperature", "inf")),
        ("skd", {"simplifier": {"temperature": math.inf}}, ("temperature", "inf")),
        ("skd", {"simplifier": {"anchor": math.inf}}, ("anchor", "inf")),
        ({"terms": [{"term": ["kd"]}]}, {}, ("unknown term", "cross_entropy", "kd")),
        # a method's settings for a part that it lacks would have no effect
        ({"like": "kd", "settings": {"simplifier": {"heads": 2}}}, {}, ("simplifier",)),
        ({"like": "student", "settings": {"kd": {"temp": 1}}}, {}, ("kd",)),
        ("kd", {"kd": {"cross_entropy": -0.5}}, ("cross_entropy", "-0.5")),
        ("student", {"cross_entropy": {"weight": -1}}, ("weight", "-1")),
        ("student", {"cross_entropy": {"weight": 0}}, ("every term has weight 0",)),
        ("skd", {"kd": {"weight": 0, "cross_entropy": 0}}, ("every term has weight 0",)),
    ],
)
def test_mistakes_are_reported_with_what_is_allowed(method, shared, words):
    with pytest.raises(StudyError) as error:
        chosen(method, **shared)
    for word in words:
        assert word in str(error.value)


def test_zero_weights_are_allowed_beside_others():
    changes = {"weight": 0, "cross_entropy": 1}
    assert [w for _, w, _ in terms(chosen({"like": "kd", "settings": {"kd": changes}}))] == [1, 0]
