"""Processes and threads that race for a lease."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import skd.common.lease
from skd.common.errors import InterruptedRunError
from skd.common.lease import (
    LeaseHeldError,
    hold_lease,
    read_holder,
)
from tests.builders.leases import DEADLINE, in_thread, leave

# Races.


@pytest.mark.parametrize("dead", [True, False])
def test_of_many_that_race_for_a_lease_one_gets_it(folder: Path, dead: bool) -> None:
    count = 8
    for _ in range(10):
        if dead:
            leave(folder, number=3, started="1")
        start, tried = threading.Barrier(count), threading.Barrier(count)
        won: list[Callable[[], None]] = []
        refused: list[str] = []

        def race(start=start, tried=tried, won=won, refused=refused) -> None:
            start.wait(DEADLINE)
            try:
                with hold_lease(folder, wait=False) as check:
                    won.append(check)
                    tried.wait(DEADLINE)  # holds the lease until all have tried
                    check()
            except LeaseHeldError as error:
                refused.append(str(error))
                tried.wait(DEADLINE)

        threads = [in_thread(race) for _ in range(count)]
        for thread in threads:
            thread.join(DEADLINE)
        assert (len(won), len(refused)) == (1, count - 1)
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("remaining", ["a dead lease", "a lease that is being released"])
def test_a_slow_taker_does_not_oust_one_who_came_meanwhile(
    folder: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, remaining: str
) -> None:
    # A slow process sees an outdated lease and chooses the next number. Before it writes that
    # file, the outdated lease is removed and another process starts with the first number.
    lease = leave(folder, started="1")
    if remaining == "a lease that is being released":
        lease.write_text("")
    create = skd.common.lease._create
    meanwhile: list[Callable[[], None]] = []

    def create_late(folder: Path, number: int) -> Path | None:
        monkeypatch.setattr(skd.common.lease, "_create", create)
        with hold_lease(folder, wait=False):
            pass
        meanwhile.append(stack.enter_context(hold_lease(folder, wait=False)))
        return create(folder, number)

    monkeypatch.setattr(skd.common.lease, "_create", create_late)
    with pytest.raises(LeaseHeldError), hold_lease(folder, wait=False):
        pass
    meanwhile[0]()


def test_a_lease_is_released_although_another_process_is_just_trying(folder: Path) -> None:
    # A process that tries writes the next number's file, sees a living holder, and withdraws.
    with hold_lease(folder, wait=False):
        trying = leave(folder, number=2)
    trying.unlink()
    assert read_holder(folder) is None


def test_waiting_for_a_lease_can_be_stopped(folder: Path) -> None:
    calls = []
    with (
        hold_lease(folder, wait=False),
        pytest.raises(InterruptedRunError, match="while waiting for"),
        hold_lease(folder, wait=True, should_stop=lambda: bool(calls.append(1)) or len(calls) > 1),
    ):
        pass
    assert len(calls) == 2
