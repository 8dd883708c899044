"""The lease: a run never has two holders, and no lease outlives its process."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

import skd.common.lease
from skd.common.errors import SkdWarning
from skd.common.lease import (
    MAX_CLOCK_SKEW_SECONDS,
    STALE_SECONDS,
    LeaseHeldError,
    LeaseHolder,
    LeaseLostError,
    hold_lease,
    read_holder,
)
from tests.builders.leases import (
    DEADLINE,
    ELSEWHERE,
    HERE,
    in_thread,
    leave,
    no_such_process,
    until,
)

# One holder.


def test_a_lease_is_exclusive_and_the_refusal_names_the_holder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with hold_lease(folder, wait=False) as check:
        with pytest.raises(LeaseHeldError) as caught, hold_lease(folder, wait=False):
            pass
        check()
        assert read_holder(folder).is_alive()
    message = str(caught.value)
    assert f"{folder.name} is being trained by process {os.getpid()} on {HERE}, job 4711" in message
    assert "--if-leased wait" in message


def test_a_lease_is_released_with_nothing_left(folder: Path) -> None:
    with hold_lease(folder, wait=False):
        assert read_holder(folder) is not None
    assert list(folder.iterdir()) == []
    with pytest.raises(ZeroDivisionError), hold_lease(folder, wait=False):
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []
    assert read_holder(folder) is None
    with hold_lease(folder, wait=False) as check:
        check()


def test_leases_of_two_runs_do_not_meet(folder: Path) -> None:
    with hold_lease(folder, wait=False), hold_lease(folder.with_name("other"), wait=False) as check:
        check()


# The dead and the living.


@pytest.mark.parametrize(
    "changes",
    [
        {"started": "1"},  # the pid belongs to another process now
        {"host": ELSEWHERE, "heartbeat": time.time() - STALE_SECONDS - 1},
        {"heartbeat": 0.0, "started": "1"},
    ],
)
def test_a_dead_holder_is_taken_over(folder: Path, changes: dict[str, object]) -> None:
    leave(folder, number=7, **changes)
    with hold_lease(folder, wait=False) as check:
        check()
        assert read_holder(folder).token != "theirs"
        assert len(list(folder.glob("lease-*.json"))) == 1
    assert list(folder.iterdir()) == []


def test_a_lease_whose_process_has_ended_is_taken_over(folder: Path) -> None:
    leave(folder, pid=no_such_process())
    with hold_lease(folder, wait=False) as check:
        check()


@pytest.mark.parametrize("text", ["", '{"token": ', "[]", '{"another": "format"}', "\x80"])
def test_a_lease_that_nobody_can_read_is_taken_over(folder: Path, text: str) -> None:
    path = leave(folder)
    path.write_text(text)
    with (
        pytest.warns(SkdWarning, match=f"{path} is damaged"),
        hold_lease(folder, wait=False) as check,
    ):
        check()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [{"heartbeat": None}, {"heartbeat": "soon"}, {"pid": "1"}, {"host": 3}, {"token": None}],
)
def test_a_lease_with_values_of_another_kind_is_damaged(folder: Path, changes: dict) -> None:
    leave(folder, **{"host": ELSEWHERE, **changes})
    with pytest.warns(SkdWarning, match="is damaged"), hold_lease(folder, wait=False) as check:
        check()


@pytest.mark.parametrize("full", [False, True])
def test_a_lease_that_is_a_folder_is_damaged_too(folder: Path, full: bool) -> None:
    path = folder / "lease-2.json"
    path.mkdir(parents=True)
    if full:
        (path / "file").touch()
    with pytest.warns(SkdWarning, match="is damaged"), hold_lease(folder, wait=False) as check:
        check()
    assert path.exists() == full


# Clocks.


def test_a_clock_that_is_some_minutes_ahead_is_believed(folder: Path) -> None:
    leave(folder, host=ELSEWHERE, heartbeat=time.time() + MAX_CLOCK_SKEW_SECONDS - 60)
    with pytest.raises(LeaseHeldError), hold_lease(folder, wait=False):
        pass


@pytest.mark.parametrize("ahead", [MAX_CLOCK_SKEW_SECONDS + 60, 10 * 365 * 86400, float("inf")])
def test_a_heartbeat_far_ahead_that_stays_alone_is_taken_over(folder: Path, ahead: float) -> None:
    leave(folder, host=ELSEWHERE, heartbeat=time.time() + ahead)
    assert not read_holder(folder).is_alive()
    warned = pytest.warns(SkdWarning, match="ahead: its clock is wrong, or the file is damaged")
    with warned, hold_lease(folder, wait=False) as check:
        check()


@pytest.mark.filterwarnings("ignore:.*its clock is wrong")
def test_a_living_holder_whose_clock_is_hours_ahead_keeps_its_lease(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        skd.common.lease, "OBSERVED_HEARTBEATS", 1000
    )  # until it beats, however busy the machine is
    hours = 5 * 3600
    path = leave(folder, host=ELSEWHERE, heartbeat=time.time() + hours)

    def beat() -> None:
        time.sleep(0.05)
        new = leave(folder, number=99, host=ELSEWHERE, heartbeat=time.time() + hours)
        new.replace(path)

    thread = in_thread(beat)
    refused = pytest.raises(LeaseHeldError, match="its clock is 5 hours ahead")
    with refused, hold_lease(folder, wait=False):
        pass
    thread.join()
    assert read_holder(folder).token == "theirs"


@pytest.mark.parametrize(
    "changes",
    [
        {"heartbeat": 0.0},  # of a process of this machine, which is known to be alive
        {"host": ELSEWHERE, "pid": 1, "started": "x"},
        {"host": ELSEWHERE, "age": STALE_SECONDS / 2},
    ],
)
def test_a_living_holder_is_not_taken_over(folder: Path, changes: dict[str, object]) -> None:
    if "age" in changes:  # as of now, not of when the tests were collected
        changes = {"host": ELSEWHERE, "heartbeat": time.time() - changes["age"]}
    path = leave(folder, **changes)
    before = path.read_text()
    with pytest.raises(LeaseHeldError), hold_lease(folder, wait=False):
        pass
    assert path.read_text() == before
    assert list(folder.iterdir()) == [path]


HOLD = """
import sys, time
from pathlib import Path
from skd.common.lease import hold_lease
assert "torch" not in sys.modules
with hold_lease(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_frees_its_lease_even_before_it_is_reaped(folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(LeaseHeldError, match=f"process {child.pid} "),
            hold_lease(folder, wait=False),
        ):
            pass
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
        with hold_lease(folder, wait=False) as check:
            check()
    finally:
        child.kill()
        child.communicate()


def test_a_terminated_process_leaves_no_lease(folder: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(3))\n" + HOLD
    child = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == 3
        assert list(folder.iterdir()) == []
    finally:
        child.kill()
        child.communicate()


# Waiting.


def test_waiting_ends_when_the_holder_is_done(folder: Path, stack: ExitStack) -> None:
    events: list[str] = []
    holders: list[LeaseHolder] = []

    def wait() -> None:
        with hold_lease(folder, wait=True, on_wait=holders.append):
            events.append("second")

    first = stack.enter_context(ExitStack())
    first.enter_context(hold_lease(folder, wait=False))
    thread = in_thread(wait)
    until(lambda: bool(holders))
    time.sleep(0.05)  # several polls
    events.append("first")
    first.close()
    thread.join(DEADLINE)
    assert events == ["first", "second"]
    assert [holder.pid for holder in holders] == [os.getpid()]  # reported once


def test_waiting_ends_when_the_holder_dies(folder: Path) -> None:
    path = leave(folder)
    waiting = threading.Event()
    got: list[bool] = []

    def wait() -> None:
        with hold_lease(folder, wait=True, on_wait=lambda _: waiting.set()):
            got.append(True)

    thread = in_thread(wait)
    assert waiting.wait(DEADLINE)
    leave(folder, started="1")
    thread.join(DEADLINE)
    assert got == [True]
    assert not path.exists()


# Heartbeats, and holders that seem dead.


def test_the_heartbeat_continues_and_stops_with_the_lease(folder: Path) -> None:
    before = set(threading.enumerate())
    with hold_lease(folder, wait=False) as check:
        first = read_holder(folder)
        until(lambda: read_holder(folder).heartbeat > first.heartbeat)
        later = read_holder(folder)
        assert {**asdict(later), "heartbeat": first.heartbeat} == asdict(first)
        check()
    assert set(threading.enumerate()) <= before


def test_a_heartbeat_that_cannot_be_written_does_not_end_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def full(*_: object) -> None:
        tried.set()
        raise OSError("no space left on device")

    with hold_lease(folder, wait=False) as check:
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.replace", full)
            assert tried.wait(DEADLINE)
        before = read_holder(folder).heartbeat
        until(lambda: read_holder(folder).heartbeat > before)
        check()


@pytest.mark.parametrize("beating", [True, False])
def test_a_holder_that_was_taken_over_notices_and_leaves_the_lease_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, beating: bool
) -> None:
    if not beating:
        monkeypatch.setattr(skd.common.lease, "HEARTBEAT_SECONDS", 600.0)
    theirs = folder / "lease-2.json"
    with hold_lease(folder, wait=False) as check:
        leave(folder, number=2)
        (folder / "lease-1.json").unlink()
        with pytest.raises(LeaseLostError, match=folder.name):
            check()
        if beating:
            time.sleep(0.1)  # beats that must not be written
    assert read_holder(folder).token == "theirs"
    assert list(folder.iterdir()) == [theirs]


def test_a_holder_whose_lease_was_removed_notices(folder: Path) -> None:
    with hold_lease(folder, wait=False) as check:
        for path in folder.glob("lease-*.json"):
            path.unlink()
        with pytest.raises(LeaseLostError, match="was removed or damaged"):
            check()


def test_a_holder_whose_folder_was_removed_reports_it_and_creates_none(folder: Path) -> None:
    with hold_lease(folder, wait=False) as check:
        shutil.rmtree(folder)
        time.sleep(0.1)  # beats
        with pytest.raises(LeaseLostError, match=f"{folder} was removed"):
            check()
    assert not folder.exists()
