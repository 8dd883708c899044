"""What `skd bench` measures of our side, and for how long: variants, groups, time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import limits, variants
from benchmarks.cases import Options
from benchmarks.limits import UNLIMITED, TimeLimit
from benchmarks.running import Plan, groups_of
from benchmarks.variants import VARIANTS, execution_of, product_choice
from skd.common.errors import UnfitError, UnknownNameError
from skd.training import fast_paths
from skd.training.execution import choose


def test_a_variant_is_an_execution() -> None:
    place = choose("cpu", 2)
    for name, variant in VARIANTS.items():
        assert name.removesuffix("-bfloat16") in ("eager", "recorded", "compiled", "kernels")
        assert (variant.precision == "bfloat16") == name.endswith("-bfloat16")
    assert execution_of("recorded", place) == place
    eager = execution_of("eager-bfloat16", place)
    assert (eager.step, eager.precision, eager.compiled) == ("eager", "bfloat16", False)
    assert execution_of("compiled", place).compiled
    with pytest.raises(UnfitError, match="on a GPU only"):
        execution_of("kernels", place)
    with pytest.raises(UnknownNameError, match=r"variant 'egaer'.*did you mean 'eager'.*kernels"):
        execution_of("egaer", place)


def test_the_products_choice_is_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    place = choose("cpu", 2)
    assert product_choice(place, 10**6) == "recorded"
    for decided, name in (
        ({}, "recorded"),
        ({"compiled": True}, "compiled"),
        ({"compiled": True, "kernels": "h100-1234"}, "kernels"),
    ):
        made = place.model_copy(update=decided)
        monkeypatch.setattr(fast_paths, "decide", lambda *_, made=made, **__: made)
        assert product_choice(place, 10**6) == name


def test_the_kernels_need_a_table_of_this_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"an H100": SimpleNamespace(name="h100")}
    stub = SimpleNamespace(table_for=known.get)
    monkeypatch.setitem(sys.modules, "skd.kernels", SimpleNamespace(tables=stub))
    monkeypatch.setitem(sys.modules, "skd.kernels.tables", stub)
    place = choose("cpu", 2).model_copy(update={"device": "cuda"})
    monkeypatch.setattr(variants, "_gpu", lambda: "an H100")
    made = execution_of("kernels-bfloat16", place)
    assert (made.kernels, made.gpu, made.compiled) == ("h100", "an H100", True)
    monkeypatch.setattr(variants, "_gpu", lambda: "another")
    with pytest.raises(UnfitError, match="no table was measured on this GPU: skd tune-kernels"):
        execution_of("kernels", place)


def test_ours_is_measured_in_every_variant_against_the_plain_loop(tmp_path: Path) -> None:
    options = Options(device="cpu", threads=1, results=tmp_path)
    sides = dict.fromkeys(["skd", "skd-live", "plain", "mdistiller"], options)
    groups = groups_of(sides, ["eager", "recorded"], [1, 4])
    assert [[*group] for group in groups] == [[*sides], *[["skd", "plain"]] * 3]
    found = [(group["skd"].variant, group["skd"].lanes) for group in groups]
    assert found == [("eager", 1), ("eager", 4), ("recorded", 1), ("recorded", 4)]
    assert groups[0]["skd-live"].variant == "eager"
    assert all(group["plain"] == options for group in groups)
    assert len(groups_of({"plain": options}, ["eager", "recorded"], [1])) == 1
    plan = Plan(rounds=3, steps=1, warmup=1, evaluations=2)
    assert plan.turns(groups) == (4 + 3) * 4 + (3 + 1) * 10  # seven are built


def test_time_is_shared_and_rounds_end_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    whole = TimeLimit.of_minutes(10)
    assert (whole.goal, whole.end, whole.left) == (100 + 570, 100 + 600, 600)
    assert TimeLimit.of_minutes(1).goal == 100 + 45  # a quarter of it is for what comes last
    assert whole.without_closing == TimeLimit(670, 685)
    part = whole.share(3)
    assert (part.goal, part.end) == (100 + 190, 700)
    begun = []
    for number in part.repeated(range(9)):
        begun.append(number)
        now += 60
    assert begun == [0, 1, 2]  # a fourth would end after 290
    now = 300.0
    assert [*part.repeated("ab")] == ["a"]  # the first in any case
    assert (whole.share(2).goal, whole.over) == (300 + 185, False)
    now = 700.0
    assert (whole.over, whole.left) == (True, 0)
    assert whole.share(2).goal == 700
    assert not UNLIMITED.over
    assert [*UNLIMITED.share(3).repeated("abc")] == [*"abc"]
