"""The lease: who trains a run now, so that nothing is trained twice. Imports no torch.

No file locks, which network file systems lack: the holder is who made the lease file of the
highest number. A file is made by linking a finished one to its name, which fails where the name
is taken; so two takers of a dead holder's lease cannot both win.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from skd.errors import InterruptedRunError, SkdError
from skd.files import writing

HEARTBEAT_SECONDS = 15.0
# A holder on another machine is taken for dead after this long without a heartbeat.
STALE_SECONDS = 180.0
SECOND_LOOK_SECONDS = 0.5
READS = 5
_NAME = re.compile(r"lease-(\d+)\.json")


class LeaseHeldError(SkdError):
    """Another process trains this run."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        super().__init__(
            f"{folder.name} is being trained by {holder}; wait for it (--if-leased wait), or end "
            "that process: it saves, and this command goes on from there"
        )
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type, tuple[Path, Holder]]:
        return type(self), (self.folder, self.holder)  # told to other processes


class LeaseLostError(SkdError):
    """This process was taken for dead, and another has taken over: stop without writing."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    started: str  # of the process, in the kernel's clock ticks: tells a reused pid apart
    job: str | None
    heartbeat: float  # seconds since 1970

    def alive(self) -> bool:
        """Whether the holder still trains, as far as can be seen from here."""
        if self.host == socket.gethostname():
            return _process_start(self.pid) == self.started
        return time.time() - self.heartbeat < STALE_SECONDS

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def holder(folder: Path) -> Holder | None:
    """Return who holds the lease of a run's folder, dead or alive, or none."""
    found = _newest(folder)
    return _read(found[1]) if found else None


@contextlib.contextmanager
def lease(
    folder: Path,
    *,
    wait: bool,
    on_wait: Callable[[Holder], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Callable[[], None]]:
    """Hold the lease of a run's folder; yields a check that raises once the lease is lost.

    Args:
        folder: the run's folder, made where it is missing.
        wait: wait for a living holder to finish, instead of refusing.
        on_wait: called once with the holder that is waited for.
        stopping: asked while waiting; true: leave.

    Raises:
        InterruptedRunError: asked to leave while waiting.
        LeaseHeldError: another process holds it, and ``wait`` is false.
        LeaseLostError: from the yielded check.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = _acquire(folder, wait, on_wait, stopping)
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
            raise LeaseLostError(f"another process has taken over {folder}")

    try:
        yield check
    finally:
        done.set()
        beat.join()
        held = _read(path)  # a taker has removed it; one who just tries has another file
        if held is not None and held.token == mine.token:
            path.unlink(missing_ok=True)


def _acquire(
    folder: Path, wait: bool, on_wait: Callable[[Holder], None], stopping: Callable[[], bool]
) -> Path:
    told = False
    while True:
        found = _newest(folder)
        current = _read(found[1]) if found else None
        if current is not None and current.alive():
            if not wait:
                raise LeaseHeldError(folder, current)
            if not told:
                on_wait(current)
                told = True
            if stopping():
                raise InterruptedRunError(f"stopped while waiting for {current}")
            time.sleep(min(1.0, HEARTBEAT_SECONDS / 5))
            continue
        number = found[0] + 1 if found else 1
        taken = _create(folder, number)
        if taken is not None:
            return taken


def _create(folder: Path, number: int) -> Path | None:
    """Make the lease file of a number; none where another process was faster."""
    mine = Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_process_start(os.getpid()) or "",
        job=os.environ.get("SLURM_JOB_ID"),
        heartbeat=time.time(),
    )
    path = folder / f"lease-{number}.json"
    temporary = folder / f".lease-{mine.token}"
    temporary.write_text(json.dumps(asdict(mine)), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        if temporary.stat().st_nlink != 2:  # ours after all: NFS lost the first answer
            return None
    finally:
        temporary.unlink()
    others = [(other, _read(file), file) for other, file in _all(folder) if file != path]
    # Numbers begin anew once a lease is released: another process may hold a later or earlier one.
    if any(other > number or (held and held.alive()) for other, held, _ in others):
        path.unlink(missing_ok=True)
        return None
    for _, _, file in others:
        file.unlink(missing_ok=True)
    return path


def _beat(path: Path, mine: Holder, lost: threading.Event, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        temporary = path.with_name(f".lease-{mine.token}")
        with contextlib.suppress(OSError):  # a full disk must not end the training
            if _is_lost_for_good(path, mine):
                lost.set()
                return
            beaten = replace(mine, heartbeat=time.time())
            temporary.write_text(json.dumps(asdict(beaten)), encoding="utf-8")
            temporary.replace(path)


def _is_lost_for_good(path: Path, mine: Holder) -> bool:
    """Look twice: a taker who finds a living holder withdraws at once."""
    if not _is_lost(path, mine):
        return False
    time.sleep(SECOND_LOOK_SECONDS)
    return _is_lost(path, mine)


def _is_lost(path: Path, mine: Holder) -> bool:
    found = _newest(path.parent)
    current = _read(found[1]) if found else None
    return current is None or current.token != mine.token


def _all(folder: Path) -> list[tuple[int, Path]]:
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("lease-*.json"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _newest(folder: Path) -> tuple[int, Path] | None:
    found = _all(folder)
    return found[-1] if found else None


def _read(path: Path) -> Holder | None:
    """Return a lease file's holder; none where it has just been removed or is not readable."""
    for _ in range(READS):
        try:
            return Holder(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        except OSError:  # NFS: replaced by a heartbeat while it was opened
            time.sleep(0.1)
    return None


def _process_start(pid: int) -> str | None:
    """Return when a process of this machine started, or none where there is no such process."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        after_name = said.rpartition(")")[2].split()
        return None if after_name[0] == "Z" else after_name[19]
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return None
    try:  # no /proc, as on macOS: the pid alone must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
