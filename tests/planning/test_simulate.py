"""The simulated schedule, against hand-made ones and the bounds of list scheduling."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.planning.job_graph import PlannedJob
from skd.planning.simulate import critical_seconds, simulate


@st.composite
def graphs(draw) -> list[PlannedJob]:
    jobs: list[PlannedJob] = []
    for place in range(draw(st.integers(1, 14))):
        needs = draw(st.lists(st.sampled_from(jobs), max_size=3, unique=True)) if jobs else []
        seconds = float(draw(st.integers(0, 50)))
        jobs.append(PlannedJob(f"job{place}", seconds, tuple(job.name for job in needs)))
    return draw(st.permutations(jobs))


DEVICES = st.integers(1, 20)


def lower_bound(jobs: list[PlannedJob], devices: int) -> float:
    work = sum(job.seconds for job in jobs)
    return max(max(critical_seconds(jobs).values()), work / devices)


def test_by_hand() -> None:
    jobs = [
        PlannedJob("teacher", 10.0),
        PlannedJob("alone", 5.0),
        PlannedJob("taught", 7.0, ("teacher",)),
        PlannedJob("report", 0.0, ("teacher", "alone", "taught")),
    ]
    two = simulate(jobs, 2)
    assert two.starts == {"teacher": 0, "alone": 0, "taught": 10, "report": 17}
    assert (two.wall_seconds, two.device_seconds) == (17, 22)
    assert two.utilisation == pytest.approx(22 / 34)
    assert simulate(jobs, 1).wall_seconds == 22
    assert simulate([], 3).utilisation == 1


def test_the_longest_way_goes_first() -> None:
    jobs = [PlannedJob("a", 4.0), PlannedJob("b", 1.0), PlannedJob("c", 9.0, ("b",))]
    assert simulate(jobs, 1).starts["b"] == 0
    assert critical_seconds(jobs) == {"a": 4, "b": 10, "c": 9}


@pytest.mark.parametrize("devices", [0, 1001])
def test_devices_out_of_range(devices) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        simulate([], devices)


def test_needs_that_cannot_be_met() -> None:
    with pytest.raises(ValueError, match="needs b, which is not a job"):
        simulate([PlannedJob("a", 1.0, ("b",))], 1)
    with pytest.raises(ValueError, match="circle: a"):
        simulate([PlannedJob("a", 1.0, ("a",))], 1)


@given(jobs=graphs(), devices=DEVICES)
def test_every_job_runs_once_after_its_needs_on_a_free_device(jobs, devices) -> None:
    schedule = simulate(jobs, devices)
    seconds = {job.name: job.seconds for job in jobs}
    assert set(schedule.starts) == set(seconds)
    for job in jobs:
        for need in job.needs:
            assert schedule.starts[job.name] >= schedule.starts[need] + seconds[need]
    ends: list[float] = []
    for start, name in sorted((start, name) for name, start in schedule.starts.items()):
        while ends and ends[0] <= start:
            heapq.heappop(ends)
        if seconds[name]:
            heapq.heappush(ends, start + seconds[name])
        assert len(ends) <= devices


@given(jobs=graphs(), devices=DEVICES)
def test_wall_time_is_within_its_bounds(jobs, devices) -> None:
    schedule, least = simulate(jobs, devices), lower_bound(jobs, devices)
    work = sum(job.seconds for job in jobs)
    longest = max(critical_seconds(jobs).values())
    assert schedule.wall_seconds >= least - 1e-9
    # Graham 1966: work / n + (1 - 1/n) critical path, so at most 2 - 1/n times the optimum.
    assert schedule.wall_seconds <= work / devices + (1 - 1 / devices) * longest + 1e-9
    assert schedule.wall_seconds <= (2 - 1 / devices) * least + 1e-9
    assert 0 <= schedule.utilisation <= 1 + 1e-9


@given(jobs=graphs(), devices=DEVICES, more=st.integers(1, 20))
def test_more_devices_are_never_worse_beyond_the_bound(jobs, devices, more) -> None:
    few, many = simulate(jobs, devices), simulate(jobs, devices + more)
    assert many.wall_seconds <= (2 - 1 / (devices + more)) * few.wall_seconds + 1e-9


@given(jobs=graphs())
def test_one_device_takes_the_sum_and_enough_the_longest_way(jobs) -> None:
    assert simulate(jobs, 1).wall_seconds == sum(job.seconds for job in jobs)
    assert simulate(jobs, len(jobs)).wall_seconds == max(critical_seconds(jobs).values())
