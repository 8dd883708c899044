"""The variants of our side that `skd bench` measures, their groups and their time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import time_limit, variants
from benchmarks.case_runner import MeasurementPlan, measurement_groups
from benchmarks.cases import SideOptions
from benchmarks.time_limit import UNLIMITED, TimeLimit
from benchmarks.variants import VARIANTS, train_choice, variant_execution
from skd.common.errors import UnfitError, UnknownNameError
from skd.training import fast_paths
from skd.training.execution import choose_execution


def test_a_variant_is_an_execution() -> None:
    place = choose_execution("cpu", 2)
    for name, variant in VARIANTS.items():
        assert name.removesuffix("-bfloat16") in ("eager", "recorded", "compiled", "kernels")
        assert (variant.precision == "bfloat16") == name.endswith("-bfloat16")
    assert variant_execution("recorded", place) == place
    eager = variant_execution("eager-bfloat16", place)
    assert (eager.step, eager.precision, eager.compiled) == ("eager", "bfloat16", False)
    assert variant_execution("compiled", place).compiled
    with pytest.raises(UnfitError, match="on a GPU only"):
        variant_execution("kernels", place)
    with pytest.raises(UnknownNameError, match=r"variant 'egaer'.*did you mean 'eager'.*kernels"):
        variant_execution("egaer", place)


def test_the_default_choice_is_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    place = choose_execution("cpu", 2)
    assert train_choice(place, 10**6) == "recorded"
    for decided, name in (
        ({}, "recorded"),
        ({"compiled": True}, "compiled"),
        ({"compiled": True, "kernels": "h100-1234"}, "kernels"),
    ):
        chosen = place.model_copy(update=decided)
        monkeypatch.setattr(fast_paths, "decide_fast_paths", lambda *_, chosen=chosen, **__: chosen)
        assert train_choice(place, 10**6) == name


def test_the_kernels_need_a_table_of_this_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"an H100": SimpleNamespace(name="h100")}
    stub = SimpleNamespace(find_table=known.get)
    monkeypatch.setitem(sys.modules, "skd.kernels", SimpleNamespace(tables=stub))
    monkeypatch.setitem(sys.modules, "skd.kernels.tables", stub)
    place = choose_execution("cpu", 2).model_copy(update={"device": "cuda"})
    monkeypatch.setattr(variants, "_gpu", lambda: "an H100")
    chosen = variant_execution("kernels-bfloat16", place)
    assert (chosen.kernels, chosen.gpu, chosen.compiled) == ("h100", "an H100", True)
    monkeypatch.setattr(variants, "_gpu", lambda: "another")
    with pytest.raises(UnfitError, match="no table was measured on this GPU: run skd tune-kernels"):
        variant_execution("kernels", place)


def test_ours_is_measured_in_every_variant_against_the_plain_loop(tmp_path: Path) -> None:
    options = SideOptions(device="cpu", threads=1, results=tmp_path)
    sides = dict.fromkeys(["skd", "skd-live", "plain", "mdistiller"], options)
    groups = measurement_groups(sides, ["eager", "recorded"], [1, 4])
    assert [[*group] for group in groups] == [[*sides], *[["skd", "plain"]] * 3]
    names = [(group["skd"].variant, group["skd"].lanes) for group in groups]
    assert names == [("eager", 1), ("eager", 4), ("recorded", 1), ("recorded", 4)]
    assert groups[0]["skd-live"].variant == "eager"
    assert all(group["plain"] == options for group in groups)
    assert len(measurement_groups({"plain": options}, ["eager", "recorded"], [1])) == 1
    plan = MeasurementPlan(rounds=3, steps=1, warmup=1, evaluations=2)
    assert plan.turns(groups) == (4 + 3) * 4 + (3 + 1) * 10  # seven are built


def test_time_is_shared_and_rounds_end_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now)
    whole = TimeLimit.of_minutes(10)
    assert (whole.goal, whole.end, whole.seconds_left) == (100 + 570, 100 + 600, 600)
    assert TimeLimit.of_minutes(1).goal == 100 + 45  # a quarter is for the closing
    assert whole.before_closing == TimeLimit(670, 685)
    part = whole.share(3)
    assert (part.goal, part.end) == (100 + 190, 700)
    started = []
    for number in part.while_time_allows(range(9)):
        started.append(number)
        now += 60
    assert started == [0, 1, 2]  # a fourth would end after 290
    now = 300.0
    assert [*part.while_time_allows("ab")] == ["a"]  # the first group always runs
    assert (whole.share(2).goal, whole.is_over) == (300 + 185, False)
    now = 700.0
    assert (whole.is_over, whole.seconds_left) == (True, 0)
    assert whole.share(2).goal == 700
    assert not UNLIMITED.is_over
    assert [*UNLIMITED.share(3).while_time_allows("abc")] == [*"abc"]
