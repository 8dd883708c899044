"""Files that are being written, under names which tell who writes them. Imports no torch.

A killed process leaves such a file. Its name has the machine, the pid and the process's start, so
that others see that nobody writes it any more.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from pathlib import Path

from skd.common.process_identity import process_start

# Of a process on another machine, which cannot be asked, and of names without a process.
ABANDONED_SECONDS = 3600.0
KEPT_CHARACTERS = (
    50  # characters of the name that is meant: this one must not be too long where that is not
)
_NAME = re.compile(r"\.(?P<target>.+)\.(?P<host>\w+)-(?P<pid>\d+)-(?P<start>\d*)\.[0-9a-f]{8}")
# As earlier versions named them.
_EARLIER = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{32}|\.lease-[0-9a-f]{32}")


def temporary_name(path: Path) -> Path:
    """Return a new name beside a path, for the file to be renamed to it once it is whole."""
    pid = os.getpid()
    process = f"{_host()}-{pid}-{process_start(pid) or ''}"
    return path.with_name(f".{path.name[:KEPT_CHARACTERS]}.{process}.{uuid.uuid4().hex[:8]}")


def temporary_files(folder: Path, target: str | None = None) -> list[Path]:
    """Return the temporary files in a folder, living processes' among them.

    Args:
        folder: need not exist.
        target: only those to be renamed to this name.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(name, _NAME.fullmatch(name) or _EARLIER.fullmatch(name)) for name in names]
    return [
        folder / name
        for name, match in found
        if match is not None and (target is None or target[:KEPT_CHARACTERS] == match["target"])
    ]


def abandoned_files(folder: Path, target: str | None = None) -> list[Path]:
    """Return the temporary files in a folder that no living process writes; as `temporary_files`.

    A process on another machine cannot be asked: its files are abandoned after an hour.
    """
    return [path for path in temporary_files(folder, target) if not _written(path)]


def _written(path: Path) -> bool:
    """Whether a living process may still write a temporary file."""
    match = _NAME.fullmatch(path.name)
    if match is not None and match["host"] == _host():
        return process_start(int(match["pid"])) == match["start"]
    try:
        return time.time() - path.stat().st_mtime < ABANDONED_SECONDS
    except FileNotFoundError:  # renamed meanwhile
        return True


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())
