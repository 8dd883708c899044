"""The lease: who trains a run now, so that nothing is trained twice. Imports no torch.

No file locks, which network file systems lack: the holder is who made the lease file of the
highest number. A file is made by linking a finished one to its name, which fails where the name
is taken; so two takers of a dead holder's lease cannot both win.
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
# A holder on another machine is taken for dead after this long without a heartbeat.
STALE_SECONDS = 180.0
# By so much the clocks of two machines may differ.
MAX_CLOCK_SKEW_SECONDS = 300.0
# A holder whose heartbeat lies further ahead than that is watched for so many heartbeats.
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
            "or end that process: it saves, and this command goes on from there"
        )
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type, tuple[Path, LeaseHolder]]:
        return type(self), (self.folder, self.holder)  # told to other processes


class LeaseLostError(SkdError):
    """The lease is gone, as where another process has taken over: stop without writing."""


@dataclass(frozen=True)
class LeaseHolder:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    started: str  # of the process, in the kernel's clock ticks: tells a reused pid apart
    job: str | None
    heartbeat: float  # seconds since 1970

    def is_alive(self) -> bool:
        """Whether the holder still trains, as far as can be seen from here."""
        if self.host == socket.gethostname():
            return process_start(self.pid) == self.started
        return not self.is_clock_ahead and time.time() - self.heartbeat < STALE_SECONDS

    @property
    def is_clock_ahead(self) -> bool:
        """Whether the last heartbeat lies further ahead than clocks differ: it tells nothing."""
        elsewhere = self.host != socket.gethostname()
        return elsewhere and self.heartbeat - time.time() > MAX_CLOCK_SKEW_SECONDS

    def clock_lead_text(self) -> str:
        """Return how far ahead the heartbeat lies, for a person."""
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
    """Return who holds the lease of a run's folder, dead or alive, or none."""
    found = _newest(folder)
    return _read(found[1]) if found else None


@contextlib.contextmanager
def hold_lease(
    folder: Path,
    *,
    wait: bool,
    on_wait: Callable[[LeaseHolder], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Callable[[], None]]:
    """Hold the lease of a run's folder; yields a check that raises once the lease is lost.

    Args:
        folder: the run's folder, made where it is missing.
        wait: wait for a living holder to finish, instead of refusing.
        on_wait: called once with the holder that is waited for.
        should_stop: asked while waiting; true: leave.

    Raises:
        InterruptedRunError: asked to leave while waiting.
        LeaseHeldError: another process holds it, and ``wait`` is false.
        LeaseLostError: from the yielded check.
    """
    with naming_path_in_errors(folder):
        path = _acquire(folder, wait, on_wait, should_stop)
    mine = _read(path)
    assert mine is not None
    lost, done = threading.Event(), threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, lost, done), daemon=True)
    beat.start()

    def check() -> None:
        with contextlib.suppress(OSError):  # a file system in trouble tells nothing
            if _is_lost_for_good(path, mine):
                lost.set()
        if lost.is_set():
            raise LeaseLostError(_why_lost(path))

    try:
        yield check
    finally:
        done.set()
        beat.join()
        held = _read(path)  # a taker has removed it; one who just tries has another file
        if held is not None and held.token == mine.token:
            path.unlink(missing_ok=True)


def _acquire(
    folder: Path, wait: bool, on_wait: Callable[[LeaseHolder], None], stopping: Callable[[], bool]
) -> Path:
    told = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        found = _newest(folder)
        current = _read(found[1]) if found else None
        if found and current is None and os.path.lexists(found[1]):
            warn_once(f"{found[1]} is damaged, so that nobody holds it: taken over")
        if current is not None and (current.is_alive() or _beats(found[1], current, stopping)):
            if not wait:
                raise LeaseHeldError(folder, current)
            if not told:
                on_wait(current)
                told = True
            if stopping():
                raise InterruptedRunError(f"stopped while waiting for {current}")
            time.sleep(_poll_seconds())
            continue
        number = found[0] + 1 if found else 1
        taken = _create(folder, number)
        if taken is not None:
            return taken


def _beats(path: Path, seen: LeaseHolder, stopping: Callable[[], bool]) -> bool:
    """Watch a lease whose heartbeat lies far ahead; return whether there is another one.

    Either a living holder's clock is wrong, or the file is damaged: only time can tell.
    """
    if not seen.is_clock_ahead:
        return False
    seconds = OBSERVED_HEARTBEATS * HEARTBEAT_SECONDS
    warn_once(
        f"{path}: the last heartbeat of {seen} lies {seen.clock_lead_text()} ahead: its clock is wrong, "
        f"or the file is damaged; without another heartbeat within {math.ceil(seconds)} s it is "
        "taken over"
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(_poll_seconds())
        now = _read(path)
        if now != seen:
            return now is not None
    return stopping()


def _poll_seconds() -> float:
    return min(1.0, HEARTBEAT_SECONDS / 5)


def _create(folder: Path, number: int) -> Path | None:
    """Make the lease file of a number; none where another process was faster."""
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
        if temporary.stat().st_nlink != 2:  # ours after all: NFS lost the first answer
            return None
    finally:
        temporary.unlink(missing_ok=True)
    others = [(other, _read(file), file) for other, file in _all(folder) if file != path]
    # Numbers begin anew once a lease is released: another process may hold a later or earlier one.
    if any(other > number or (held and held.is_alive()) for other, held, _ in others):
        path.unlink(missing_ok=True)
        return None
    for file in [*(file for _, _, file in others), *abandoned_files(folder, path.name)]:
        _remove(file)
    return path


def _remove(path: Path) -> None:
    """Remove a lease that counts no more; a folder of its name stays where something is in it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        path.rmdir()


def _beat(path: Path, mine: LeaseHolder, lost: threading.Event, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        temporary = temporary_name(path)
        with contextlib.suppress(OSError):  # a full disk must not end the training
            if _is_lost_for_good(path, mine):
                lost.set()
                return
            try:
                beaten = replace(mine, heartbeat=time.time())
                temporary.write_text(json.dumps(asdict(beaten)), encoding="utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _why_lost(path: Path) -> str:
    """Return the message for a holder whose lease is gone."""
    folder = path.parent
    if not folder.is_dir():
        return (
            f"{folder} has been removed while this was under way: nothing more is written there, "
            "and the same command begins it anew"
        )
    if (current := read_holder(folder)) is None:
        return f"{path} has been removed or damaged while this was under way: nothing more is saved"
    return f"another process has taken over {folder}: {current}"


def _is_lost_for_good(path: Path, mine: LeaseHolder) -> bool:
    """Look twice: a taker who finds a living holder withdraws at once."""
    if not _is_lost(path, mine):
        return False
    time.sleep(RECHECK_SECONDS)
    return _is_lost(path, mine)


def _is_lost(path: Path, mine: LeaseHolder) -> bool:
    found = _newest(path.parent)
    current = _read(found[1]) if found else None
    return current is None or current.token != mine.token


def _all(folder: Path) -> list[tuple[int, Path]]:
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("lease-*.json"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _newest(folder: Path) -> tuple[int, Path] | None:
    found = _all(folder)
    return found[-1] if found else None


def _read(path: Path) -> LeaseHolder | None:
    """Return a lease file's holder; none where it has just been removed or is not readable."""
    for _ in range(READ_ATTEMPTS):
        try:
            return _HOLDER.validate_json(path.read_bytes(), strict=True)
        except (FileNotFoundError, IsADirectoryError, ValueError):
            return None
        except OSError:  # NFS: replaced by a heartbeat while it was opened
            time.sleep(0.1)
    return None
