"""Groups of sides in turns: when they are built, their comparisons and their time limits."""

from __future__ import annotations

import time

from benchmarks.case_runner import MeasurementPlan, measurement_groups, run_case
from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.side_process import SideProcess
from benchmarks.time_limit import TimeLimit
from tests.builders.bench_sides import FAKES, PLAN


def test_sides_take_turns(case: BenchmarkCase, options: SideOptions) -> None:
    builders, messages = dict.fromkeys(["good", "other"], f"{FAKES}:build"), []
    measured = run_case(case, [dict.fromkeys(builders, options)], PLAN, messages.append, builders)
    assert [len(side.rounds) for side in measured] == [3, 3]
    turns = [line.partition(": ")[2].partition(",")[0] for line in messages if "round" in line]
    assert turns == ["good", "other", "other", "good", "good", "other"]
    assert len(messages) == PLAN.turns([dict.fromkeys(builders, options)])


def test_ours_is_built_again_in_its_process(case: BenchmarkCase, options: SideOptions) -> None:
    builders = {"skd": f"{FAKES}:build", "skd-live": f"{FAKES}:build", "plain": f"{FAKES}:build"}
    sides = dict.fromkeys(builders, options)
    groups = measurement_groups(sides, ["recorded", "kernels", "eager", "compiled"], [1, 3])
    plan, messages = MeasurementPlan(rounds=2, steps=3, warmup=1, evaluations=1), []
    measured = run_case(case, groups, plan, messages.append, builders)
    names = [(side.side, side.variant, side.lanes) for side in measured]
    assert names == [
        ("skd", "recorded", 1), ("skd-live", "recorded", 1), ("plain", None, None),
        ("skd", "recorded", 3), ("skd", "kernels", 1), ("skd", "kernels", 3), ("skd", "eager", 1),
        ("skd", "eager", 3), ("skd", "compiled", 1), ("skd", "compiled", 3),
    ]  # fmt: skip
    first, live, plain, again, *unfit = measured[:6]
    assert all(side.failure == "there is no such table" and side.unfit for side in unfit)
    # Each is measured in turns with the plain loop, which continues: 2 groups lack our side.
    assert len(plain.rounds) == 2 * 6
    assert [side.plain_rounds for side in (first, again)] == [plain.rounds[:2], plain.rounds[2:4]]
    assert measured[-1].plain_rounds == plain.rounds[-2:]
    assert plain.how["steps"] == 1 + 2 * 6 * (1 + 3)
    assert plain.how["evaluations"] == live.how["evaluations"] == 1
    built = [side for side in measured[3:] if not side.failure]
    assert len({side.how["process"] for side in built}) == 1  # the unfit variants did not change it
    for side in built:
        request = (side.lanes, side.variant, 1 + 2 * (1 + 3))
        assert (side.how["lanes"], side.how["variant"], side.how["steps"]) == request
    orders = [line for line in messages if "round" in line and "skd-live" not in line]
    turns = ["plain" if ": plain" in line else "skd" for line in orders]
    assert turns == ["skd", "plain", "plain", "skd"] * 6


def test_a_process_that_has_failed_is_replaced(case: BenchmarkCase, options: SideOptions) -> None:
    builders = {"skd": f"{FAKES}:build_broken", "plain": f"{FAKES}:build"}
    groups = measurement_groups(dict.fromkeys(builders, options), ["recorded", "eager"], [None])
    measured = run_case(case, groups, PLAN, builders=builders)
    ours = [side for side in measured if side.side == "skd"]
    assert [side.failure for side in ours] == ["ArithmeticError: the sixth step"] * 2
    (plain,) = (side for side in measured if side.side == "plain")
    assert len(plain.rounds) == 6


def test_time_ends_what_is_under_way(case: BenchmarkCase, options: SideOptions) -> None:
    builders = {"skd": f"{FAKES}:build_sleeping", "plain": f"{FAKES}:build"}
    groups = measurement_groups(dict.fromkeys(builders, options), ["recorded", "eager"], [None])
    started = time.monotonic()
    limit = TimeLimit(started + 8, started + 8)
    plan = MeasurementPlan(rounds=2, steps=1, warmup=1, evaluations=1)
    measured = run_case(case, groups, plan, builders=builders, limit=limit)
    assert 8 <= time.monotonic() - started < 16
    assert [(side.name, side.skipped) for side in measured] == [
        ("skd recorded", True), ("plain", True), ("skd eager", True),
    ]  # fmt: skip
    assert {side.failure for side in measured} == {None}


def test_fewer_rounds_are_measured_where_time_is_short(
    case: BenchmarkCase, options: SideOptions
) -> None:
    builders = {"skd": f"{FAKES}:build", "plain": f"{FAKES}:build"}
    groups = measurement_groups(dict.fromkeys(builders, options), ["recorded", "eager"], [None])
    now = time.monotonic()
    limit = TimeLimit(goal=now, end=now + 600)  # the rounds should be over before they begin
    measured = run_case(case, groups, PLAN, builders=builders, limit=limit)
    assert [(side.name, len(side.rounds), len(side.evaluations)) for side in measured] == [
        ("skd recorded", 1, 1), ("plain", 2, 1), ("skd eager", 1, 1),
    ]  # fmt: skip


def test_a_turn_may_end_before_all_its_steps(case: BenchmarkCase, options: SideOptions) -> None:
    with SideProcess(f"{FAKES}:build", case, options) as side:
        side.build()
        assert 0.001 <= side.time_steps(500, seconds=0.05) < 0.05  # a step
        assert 10 <= side.finish()["how"]["steps"] < 60
        side.time_steps(20, seconds=0)
        assert side.finish()["how"]["steps"] < 60 + 20
