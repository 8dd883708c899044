"""List scheduling of jobs on identical devices, to estimate how long a study takes. No torch."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from skd.planning.job_graph import PlannedJob

MAX_DEVICES = 1000
# The numbers of devices for which a plan is simulated.
DEVICE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 100, 256, MAX_DEVICES)


@dataclass(frozen=True)
class Schedule:
    """The result of a simulation.

    Attributes:
        devices: the number of devices.
        wall_seconds: the seconds from the first start to the last end.
        device_seconds: the sum of all jobs' seconds.
        starts: the start of each job in seconds, by its name.
    """

    devices: int
    wall_seconds: float
    device_seconds: float
    starts: dict[str, float]

    @property
    def utilisation(self) -> float:
        """The share of the devices' time that jobs use; 1 if there are no jobs."""
        available = self.devices * self.wall_seconds
        return self.device_seconds / available if available else 1.0


def shortest_schedules(schedules: Sequence[Schedule]) -> list[Schedule]:
    """Return the schedules, by rising number of devices, up to the first that is as short as any.

    Times that differ by less than one per cent count as the same.
    """
    return [*schedules[: count_useful([schedule.wall_seconds for schedule in schedules])]]


def count_useful(wall_seconds: Sequence[float]) -> int:
    """Return how many of some times, by rising number of devices, end with the first shortest one.

    Times that differ by less than one per cent count as the same.
    """
    shortest = 1.01 * min(wall_seconds, default=0.0)
    return next((i for i, seconds in enumerate(wall_seconds, 1) if seconds <= shortest), 0)


def simulate(jobs: Sequence[PlannedJob], devices: int) -> Schedule:
    """Simulate jobs on a number of devices.

    Each free device takes the ready job with the longest path to the end.

    Args:
        jobs: the jobs, with all jobs that they need.
        devices: the number of devices, from 1 to 1000.

    Raises:
        ValueError: the number of devices is out of range, a job needs an unknown job, or jobs need
            each other in a circle.
    """
    if not 1 <= devices <= MAX_DEVICES:
        raise ValueError(f"devices: 1 to {MAX_DEVICES}, not {devices}")
    to_end = critical_seconds(jobs)
    by_name = {job.name: job for job in jobs}
    waiting = {job.name: len(set(job.needs)) for job in jobs}
    followers = _followers(jobs)
    ready = [(-to_end[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    starts: dict[str, float] = {}
    now = 0.0
    while ready or running:
        while ready and len(running) < devices:
            _, name = heapq.heappop(ready)
            starts[name] = now
            heapq.heappush(running, (now + by_name[name].seconds, name))
        now, name = heapq.heappop(running)
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (-to_end[follower], follower))
    return Schedule(devices, now, sum(job.seconds for job in jobs), starts)


def critical_seconds(jobs: Sequence[PlannedJob]) -> dict[str, float]:
    """Return the seconds of the longest path from each job's start to the end of all jobs.

    Raises:
        ValueError: a job needs an unknown job, or jobs need each other in a circle.
    """
    followers, open_needs = _followers(jobs), {job.name: set(job.needs) for job in jobs}
    by_name = {job.name: job for job in jobs}
    order = [name for name, needs in open_needs.items() if not needs]
    for name in order:  # grows during the loop: each job comes after the jobs that it needs
        for follower in followers[name]:
            open_needs[follower].discard(name)
            if not open_needs[follower]:
                order.append(follower)
    if circle := open_needs.keys() - {*order}:
        raise ValueError(f"jobs need each other in a circle: {', '.join(circle)}")
    to_end: dict[str, float] = {}
    for name in reversed(order):
        after = max((to_end[follower] for follower in followers[name]), default=0.0)
        to_end[name] = by_name[name].seconds + after
    return to_end


def _followers(jobs: Sequence[PlannedJob]) -> dict[str, list[str]]:
    followers: dict[str, list[str]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in dict.fromkeys(job.needs):
            if need not in followers:
                raise ValueError(f"job {job.name} needs {need}, which is not a job")
            followers[need].append(job.name)
    return followers
