"""Temporary files, whose names identify the process that writes them. Imports no torch.

A killed process leaves its temporary files. Their names contain the machine, the pid and the start
time of the process, so other processes can tell that nobody writes them any more.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from pathlib import Path

from skd.common.process_identity import process_start

# Age at which a file counts as abandoned if its process is unknown or on another machine.
ABANDONED_SECONDS = 3600.0
KEPT_CHARACTERS = 50  # of the final name: the temporary name must not be too long for a file
_NAME = re.compile(r"\.(?P<target>.+)\.(?P<host>\w+)-(?P<pid>\d+)-(?P<start>\d*)\.[0-9a-f]{8}")
# Names of earlier versions.
_EARLIER = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{32}|\.lease-[0-9a-f]{32}")


def temporary_name(path: Path) -> Path:
    """Return a new name in the folder of a path, for a file that is renamed when complete."""
    pid = os.getpid()
    process = f"{_host()}-{pid}-{process_start(pid) or ''}"
    return path.with_name(f".{path.name[:KEPT_CHARACTERS]}.{process}.{uuid.uuid4().hex[:8]}")


def temporary_files(folder: Path, target: str | None = None) -> list[Path]:
    """Return the temporary files in a folder, including those of living processes.

    Args:
        folder: the folder, which need not exist.
        target: return only files that will be renamed to this name.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [(name, _NAME.fullmatch(name) or _EARLIER.fullmatch(name)) for name in names]
    return [
        folder / name
        for name, match in matches
        if match is not None and (target is None or target[:KEPT_CHARACTERS] == match["target"])
    ]


def abandoned_files(folder: Path, target: str | None = None) -> list[Path]:
    """Return the temporary files in a folder that no living process writes.

    Processes on other machines cannot be checked: their files count as abandoned after an hour.
    The arguments are those of `temporary_files`.
    """
    return [path for path in temporary_files(folder, target) if not _is_being_written(path)]


def _is_being_written(path: Path) -> bool:
    """Return whether a living process may still write a temporary file."""
    match = _NAME.fullmatch(path.name)
    if match is not None and match["host"] == _host():
        return process_start(int(match["pid"])) == match["start"]
    try:
        return time.time() - path.stat().st_mtime < ABANDONED_SECONDS
    except FileNotFoundError:  # renamed in the meantime
        return True


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())
