"""Start times of processes, which tell whether a process is still alive. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return the start time of a process of this machine; ``None`` if there is no such process.

    The start time is in the kernel's clock ticks. It distinguishes processes that had the same
    pid. Without ``/proc``, as on macOS, it is empty for every process.
    """
    try:
        # The name, in parentheses, may have any bytes; the rest is ASCII.
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if after_name[0] == b"Z" else after_name[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        pass
    if Path("/proc/self").exists():
        return None
    try:  # without /proc only the pid can be checked
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return ""
