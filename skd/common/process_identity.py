"""Whether a process of this machine still lives. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return when a process of this machine started, or none where there is no such process.

    It is in the kernel's clock ticks, and tells a reused pid apart. Where there is no ``/proc``,
    as on macOS, it is empty for every process.
    """
    try:
        # The name, in parentheses, may be any bytes; what follows it is ASCII.
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if after_name[0] == b"Z" else after_name[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        pass
    if Path("/proc/self").exists():
        return None
    try:  # the pid alone must do
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return ""
