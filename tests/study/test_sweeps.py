"""Sweeps in a sheet: the methods that they make, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from skd.expansion.expand import expand_sheet
from skd.study.expansion import Expansion
from skd.study.sheet import Sheet, StudyError
from skd.study.sweeps import value_name
from tests.builders import tiny


def expanded(*methods: Any, **changes: Any) -> Expansion:
    sheet = {**copy.deepcopy(tiny.SHEET), "methods": ["student", *methods], **changes}
    return expand_sheet(Sheet.model_validate(sheet), study="mine")


def sweep(name: str = "skd-T", like: str = "skd", **entry: Any) -> dict[str, Any]:
    keys = entry.pop("keys", {"simplifier.temperature": [1, 2, 4, 8]})
    return {"name": name, "like": like, "sweep": keys, **entry}


def by_hand(name: str, temperature: float) -> dict[str, Any]:
    return {
        "name": name,
        "like": "skd",
        "settings": {"simplifier": {"temperature": temperature}},
    }


def test_a_sweep_is_the_methods_written_out() -> None:
    swept = expanded(sweep())
    written = expanded(*(by_hand(f"skd-T-{t}", t) for t in (1, 2, 4, 8)))
    assert swept.methods == ("student", "skd-T-1", "skd-T-2", "skd-T-4", "skd-T-8")
    assert [(c.key, c.runs) for c in swept.cells] == [(c.key, c.runs) for c in written.cells]
    assert swept.notes == ()


def test_several_keys_are_combined_and_a_recipe_can_be_swept() -> None:
    keys = {"kd.weight": [0.5, 2.0], "recipe.milestones": [[], [1, 2]]}
    entry = {"name": "kd", "sweep": keys, "settings": {"kd": {"temperature": 2}}}
    expansion = expanded(entry, {**entry, "name": "own", "terms": [{"term": "kd"}]})
    names = ("0.5-none", "0.5-1_2", "2-none", "2-1_2")
    assert expansion.methods[1:5] == tuple(f"kd-{name}" for name in names)
    assert expansion.methods[5:] == tuple(f"own-{name}" for name in names)
    for cell in expansion.cells[1:5]:
        _, kd = cell.spec.method.terms
        assert kd.settings["temperature"] == 2
        weight, milestones = cell.method.split("-")[1:]
        assert kd.settings["weight"] == float(weight)
        assert cell.spec.recipe.milestones == ((1, 2) if milestones == "1_2" else ())


def test_a_value_that_equals_another_method_is_noted_and_shares_its_runs() -> None:
    expansion = expanded("skd", sweep())
    assert expansion.notes == ("methods: skd-T-4: the same as skd; they share their runs",)
    assert expansion.cell(tiny.PAIR, "skd").runs == expansion.cell(tiny.PAIR, "skd-T-4").runs


def test_a_pair_leaves_out_a_sweep_or_some_of_it() -> None:
    pair = {"teacher": "teacher", "student": "resnet8"}
    some = expanded(sweep(), pairs=[{**pair, "without": ["skd-T-1", "skd-T-8"]}])
    assert some.methods_of("teacher", "resnet8") == ["student", "skd-T-2", "skd-T-4"]
    none = expanded("kd", sweep(), pairs=[{**pair, "without": ["skd-T"]}])
    assert none.methods_of("teacher", "resnet8") == ["student", "kd"]
    with pytest.raises(ValidationError, match=r"without: unknown method 'skd-T-3'.*skd-T-2"):
        expanded(sweep(), pairs=[{**pair, "without": ["skd-T-3"]}])


def test_values_become_parts_of_names() -> None:
    values = [4, 4.0, 0.5, 1e-5, True, None, "batch", [150, 180], []]
    names = ["4", "4", "0.5", "1e-05", "true", "none", "batch", "150_180", "none"]
    assert [value_name(value) for value in values] == names


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (sweep(keys={}), "skd-T: sweep: names no setting; write for example"),
        (sweep(keys={"temperature": [1]}), "sweep: 'temperature': write PART.SETTING, such as"),
        (
            sweep(keys={"recipe.epoch": [1]}),
            r"recipe.epoch: unknown setting 'epoch' \(did you mean 'epochs'\?\).*batch_size",
        ),
        (sweep(keys={"kd.weight": []}), "kd.weight: has no values; write a list"),
        (sweep(keys={"kd.weight": 2}), r"methods.2.sweep.`kd.weight`"),
        (sweep(keys={"kd.weight": [1, 2, 1.0]}), "kd.weight: 1 is listed twice"),
        (sweep(keys={"kd.weight": [{"a": 1}]}), "is not a value of a setting"),
        (
            sweep(keys={f"kd.{name}": list(range(11)) for name in "abc"}),
            "1,331 combinations of the values; allowed: up to 1,000 methods",
        ),
        (sweep(name="n" * 49), "has 51 characters"),
        (
            sweep(simplifier={"temperature": 3}),
            "simplifier.temperature: the method also sets it; write it only once",
        ),
        (
            sweep(keys={"recipe.epochs": [3]}, recipe={"epochs": 4}),
            "recipe.epochs: the method also sets it",
        ),
        (sweep(name="kd"), "methods: named twice: kd"),
        ({"name": "skd-T-2", "like": "kd"}, "methods: named twice: skd-T-2"),
    ],
)
def test_what_a_sweep_cannot_be_is_refused_without_torch(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        expanded("kd", sweep(), entry) if "sweep" not in entry else expanded("kd", entry)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"simplifier.temperatures": [1]},
            "methods: skd-T-1: simplifier: unknown key 'temperatures' .did you mean 'temperature'",
        ),
        ({"simplifer.temperature": [1]}, "unknown term 'simplifer' .did you mean 'simplifier'"),
        ({"dkd.beta": [1]}, "methods: skd-T-1: settings: has no part 'dkd'"),
        ({"kd.temperature": [1, 0]}, "methods: skd-T-0: term kd: temperature: must be greater"),
        ({"recipe.epochs": [2]}, r"methods: skd-T-2: recipe: milestones 2 \(from recipe\)"),
    ],
)
def test_parts_and_values_are_checked_as_if_they_were_written(
    keys: dict[str, list[Any]], words: str
) -> None:
    with pytest.raises(StudyError, match=words):
        expanded(sweep(keys=keys))


def test_two_sweeps_of_one_name_and_keys_that_terms_write_are_refused() -> None:
    other = sweep("skd-T", keys={"kd.weight": [1, 2]})
    with pytest.raises(ValidationError, match="sweeps named twice: skd-T"):
        expanded(sweep(), other)
    entry = {"name": "own", "terms": [{"term": "kd", "temperature": 4}]}
    with pytest.raises(ValidationError, match=r"kd\.temperature: the method also sets it"):
        expanded({**entry, "sweep": {"kd.temperature": [1, 2]}})
