"""List scheduling of jobs on like devices, to tell how long a study takes. Imports no torch."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from skd.planning.job_graph import PlannedJob

MAX_DEVICES = 1000
# What a plan is simulated on.
DEVICE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 100, 256, MAX_DEVICES)


@dataclass(frozen=True)
class Schedule:
    """What a simulated schedule came to.

    Attributes:
        devices: how many there were.
        wall_seconds: from the first start to the last end.
        device_seconds: of all jobs together.
        starts: each job's start in seconds, by its name.
    """

    devices: int
    wall_seconds: float
    device_seconds: float
    starts: dict[str, float]

    @property
    def utilisation(self) -> float:
        """Share of the devices' time that jobs fill; 1 where there is nothing to do."""
        available = self.devices * self.wall_seconds
        return self.device_seconds / available if available else 1.0


def simulate(jobs: Sequence[PlannedJob], devices: int) -> Schedule:
    """Run jobs on so many devices: whenever one is free, the ready job with the longest way to go.

    Args:
        jobs: each one's needs are among them.
        devices: 1 to 1000.

    Raises:
        ValueError: a number of devices out of range, a need that is no job, or a circle of needs.
    """
    if not 1 <= devices <= MAX_DEVICES:
        raise ValueError(f"devices: 1 to {MAX_DEVICES}, not {devices}")
    to_go = critical_seconds(jobs)
    by_name = {job.name: job for job in jobs}
    waiting = {job.name: len(set(job.needs)) for job in jobs}
    followers = _followers(jobs)
    ready = [(-to_go[name], name) for name, count in waiting.items() if not count]
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
                heapq.heappush(ready, (-to_go[follower], follower))
    return Schedule(devices, now, sum(job.seconds for job in jobs), starts)


def critical_seconds(jobs: Sequence[PlannedJob]) -> dict[str, float]:
    """Return the longest way from each job's start to the end of all, in seconds.

    Raises:
        ValueError: a need that is no job, or a circle of needs.
    """
    followers, left = _followers(jobs), {job.name: set(job.needs) for job in jobs}
    by_name = {job.name: job for job in jobs}
    order = [name for name, needs in left.items() if not needs]
    for name in order:  # grows while it is walked: every job after its needs
        for follower in followers[name]:
            left[follower].discard(name)
            if not left[follower]:
                order.append(follower)
    if len(order) < len(left):
        raise ValueError(f"jobs need each other in a circle: {', '.join(set(left) - set(order))}")
    to_go: dict[str, float] = {}
    for name in reversed(order):
        after = max((to_go[follower] for follower in followers[name]), default=0.0)
        to_go[name] = by_name[name].seconds + after
    return to_go


def _followers(jobs: Sequence[PlannedJob]) -> dict[str, list[str]]:
    followers: dict[str, list[str]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in dict.fromkeys(job.needs):
            if need not in followers:
                raise ValueError(f"job {job.name} needs {need}, which is no job")
            followers[need].append(job.name)
    return followers
