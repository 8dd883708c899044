"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of the file's own name, only so much that this one is not too long where that is not.
    temporary = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def home_expanded(path: str | Path) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced, where there is such a home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  pathlib's raises where there is none


def path_from_environment(variable: str) -> Path | None:
    """Return the path that an environment variable holds, ``~`` expanded; none: unset or empty."""
    value = os.environ.get(variable)
    return home_expanded(value) if value else None


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically; refuses NaN, which no other JSON reader takes."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
