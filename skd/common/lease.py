"""Leases of runs: only one process trains a run at a time. Imports no torch.

Network file systems lack file locks, so leases use numbered files. The process that created the
lease file with the highest number holds the lease. A process creates a lease file by linking a
complete file to its name. This fails if the name exists, so of two processes that take over the
lease of a dead holder only one succeeds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from skd.common.errors import InterruptedRunError, SkdError, warn_once
from skd.common.files import naming_path_in_errors
from skd.common.process_identity import process_start
from skd.common.temporary_files import abandoned_files, temporary_name

HEARTBEAT_SECONDS = 15.0
# A holder on another machine counts as dead after this time without a heartbeat.
STALE_SECONDS = 180.0
# Largest expected difference between the clocks of two machines.
MAX_CLOCK_SKEW_SECONDS = 300.0
# A holder whose heartbeat is further in the future is watched for this number of heartbeats.
OBSERVED_HEARTBEATS = 3
RECHECK_SECONDS = 0.5
READ_ATTEMPTS = 5
_NAME = re.compile(r"lease-(\d+)\.json")


class LeaseHeldError(SkdError):
    """Another process trains this run."""

    def __init__(self, folder: Path, holder: LeaseHolder) -> None:
        clock = f" (its clock is {holder.clock_lead_text()} ahead)" if holder.is_clock_ahead else ""
        super().__init__(
            f"{folder.name} is being trained by {holder}{clock}; wait for it (--if-leased wait), "
            "or end that process: it saves its state, and this command continues from there"
        )
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type, tuple[Path, LeaseHolder]]:
        return type(self), (self.folder, self.holder)  # pickled to send it to other processes


class LeaseLostError(SkdError):
    """The lease is lost, for example to another process: stop without writing."""


@dataclass(frozen=True)
class LeaseHolder:
    """The process that holds a lease."""

    token: str
    host: str
    pid: int
    started: str  # start time in the kernel's clock ticks; distinguishes processes with one pid
    job: str | None
    heartbeat: float  # seconds since 1970

    def is_alive(self) -> bool:
        """Return whether the holder still trains, as far as this machine can tell."""
        if self.host == socket.gethostname():
            return process_start(self.pid) == self.started
        return not self.is_clock_ahead and time.time() - self.heartbeat < STALE_SECONDS

    @property
    def is_clock_ahead(self) -> bool:
        """Whether the heartbeat is so far in the future that it does not show the age."""
        is_remote = self.host != socket.gethostname()
        return is_remote and self.heartbeat - time.time() > MAX_CLOCK_SKEW_SECONDS

    def clock_lead_text(self) -> str:
        """Return how far in the future the heartbeat is, as text."""
        seconds = self.heartbeat - time.time()
        unit, name = next(
            (unit, name)
            for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes"))
            if seconds >= unit or unit == 60
        )
        return f"{seconds / unit:.0f} {name}"

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


_HOLDER = TypeAdapter(LeaseHolder)


def read_holder(folder: Path) -> LeaseHolder | None:
    """Return the holder, dead or alive, of the lease of a run's folder; ``None`` without one."""
    newest = _newest(folder)
    return _read(newest[1]) if newest else None


@contextlib.contextmanager
def hold_lease(
    folder: Path,
    *,
    wait: bool,
    on_wait: Callable[[LeaseHolder], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Callable[[], None]]:
    """Hold the lease of a run's folder, and yield a function that raises if the lease is lost.

    Args:
        folder: the run's folder, created if missing.
        wait: whether to wait for a living holder instead of raising.
        on_wait: called once with the holder, when waiting begins.
        should_stop: returns whether to stop waiting.

    Raises:
        InterruptedRunError: ``should_stop`` returned true.
        LeaseHeldError: another process holds the lease, and ``wait`` is false.
        LeaseLostError: raised by the yielded function.
    """
    with naming_path_in_errors(folder):
        path = _acquire(folder, wait, on_wait, should_stop)
    mine = _read(path)
    assert mine is not None
    lost, done = threading.Event(), threading.Event()
    heartbeat = threading.Thread(
        target=_send_heartbeats, args=(path, mine, lost, done), daemon=True
    )
    heartbeat.start()

    def check() -> None:
        with contextlib.suppress(OSError):  # an unreadable file system does not show a loss
            if _is_lost_for_good(path, mine):
                lost.set()
        if lost.is_set():
            raise LeaseLostError(_loss_message(path))

    try:
        yield check
    finally:
        done.set()
        heartbeat.join()
        current = _read(path)  # missing if another process took over
        if current is not None and current.token == mine.token:
            path.unlink(missing_ok=True)


def _acquire(
    folder: Path,
    wait: bool,
    on_wait: Callable[[LeaseHolder], None],
    should_stop: Callable[[], bool],
) -> Path:
    """Create a lease file, and return its path."""
    is_waiting = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        newest = _newest(folder)
        current = _read(newest[1]) if newest else None
        if newest and current is None and os.path.lexists(newest[1]):
            warn_once(f"{newest[1]} is damaged, so nobody holds this lease; it is taken over")
        if current is not None and (
            current.is_alive() or _sends_heartbeat(newest[1], current, should_stop)
        ):
            if not wait:
                raise LeaseHeldError(folder, current)
            if not is_waiting:
                on_wait(current)
                is_waiting = True
            if should_stop():
                raise InterruptedRunError(f"stopped while waiting for {current}")
            time.sleep(_poll_seconds())
            continue
        number = newest[0] + 1 if newest else 1
        created = _create(folder, number)
        if created is not None:
            return created


def _sends_heartbeat(path: Path, holder: LeaseHolder, should_stop: Callable[[], bool]) -> bool:
    """Watch a lease whose heartbeat is far in the future; return whether another one comes.

    Either the clock of a living holder is wrong, or the file is damaged. Only waiting shows which.
    """
    if not holder.is_clock_ahead:
        return False
    seconds = OBSERVED_HEARTBEATS * HEARTBEAT_SECONDS
    warn_once(
        f"{path}: the last heartbeat of {holder} is {holder.clock_lead_text()} ahead: its clock is "
        "wrong, or the file is damaged; the lease is taken over if no other heartbeat comes "
        f"within {math.ceil(seconds)} s"
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end and not should_stop():
        time.sleep(_poll_seconds())
        current = _read(path)
        if current != holder:
            return current is not None
    return should_stop()


def _poll_seconds() -> float:
    return min(1.0, HEARTBEAT_SECONDS / 5)


def _create(folder: Path, number: int) -> Path | None:
    """Create the lease file with a number; return ``None`` if another process was faster."""
    mine = LeaseHolder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=process_start(os.getpid()) or "",
        job=os.environ.get("SLURM_JOB_ID"),
        heartbeat=time.time(),
    )
    path = folder / f"lease-{number}.json"
    temporary = temporary_name(path)
    try:
        temporary.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        if temporary.stat().st_nlink != 2:  # 2: the link was created, but NFS lost the answer
            return None
    finally:
        temporary.unlink(missing_ok=True)
    others = [(other, _read(file), file) for other, file in _all(folder) if file != path]
    # Numbers restart when a lease is released, so another process may hold a higher or lower one.
    if any(other > number or (holder and holder.is_alive()) for other, holder, _ in others):
        path.unlink(missing_ok=True)
        return None
    for file in [*(file for _, _, file in others), *abandoned_files(folder, path.name)]:
        _remove(file)
    return path


def _remove(path: Path) -> None:
    """Remove an expired lease file, or an empty folder with its name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        path.rmdir()


def _send_heartbeats(
    path: Path, mine: LeaseHolder, lost: threading.Event, done: threading.Event
) -> None:
    """Renew the heartbeat until ``done`` is set or the lease is lost."""
    while not done.wait(HEARTBEAT_SECONDS):
        temporary = temporary_name(path)
        with contextlib.suppress(OSError):  # a full disk must not end the training
            if _is_lost_for_good(path, mine):
                lost.set()
                return
            try:
                renewed = replace(mine, heartbeat=time.time())
                temporary.write_text(json.dumps(asdict(renewed)), encoding="utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _loss_message(path: Path) -> str:
    """Return the message for a holder that has lost its lease."""
    folder = path.parent
    if not folder.is_dir():
        return (
            f"{folder} was removed during the training: nothing more is written there; run the "
            "same command again to start it from the beginning"
        )
    if (current := read_holder(folder)) is None:
        return f"{path} was removed or damaged during the training: nothing more is saved"
    return f"another process has taken over {folder}: {current}"


def _is_lost_for_good(path: Path, mine: LeaseHolder) -> bool:
    """Check twice: a process that finds a living holder withdraws its lease file immediately."""
    if not _is_lost(path, mine):
        return False
    time.sleep(RECHECK_SECONDS)
    return _is_lost(path, mine)


def _is_lost(path: Path, mine: LeaseHolder) -> bool:
    newest = _newest(path.parent)
    current = _read(newest[1]) if newest else None
    return current is None or current.token != mine.token


def _all(folder: Path) -> list[tuple[int, Path]]:
    """Return number and path of the lease files in a folder, by number."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("lease-*.json"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _newest(folder: Path) -> tuple[int, Path] | None:
    leases = _all(folder)
    return leases[-1] if leases else None


def _read(path: Path) -> LeaseHolder | None:
    """Return the holder in a lease file; ``None`` if the file is missing or cannot be read."""
    for _ in range(READ_ATTEMPTS):
        try:
            return _HOLDER.validate_json(path.read_bytes(), strict=True)
        except (FileNotFoundError, IsADirectoryError, ValueError):
            return None
        except OSError:  # NFS: a heartbeat replaced the file while it was opened
            time.sleep(0.1)
    return None
