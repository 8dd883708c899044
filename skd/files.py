"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from pathlib import Path
from typing import Any, NoReturn

DEEPEST = 100  # levels of lists and objects; a file of ours has a few


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, fit to be walked through, shown and written again.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is no regular file, or no JSON in UTF-8; it has NaN, Infinity or text that is
            not Unicode, or more than 100 levels.
    """
    if path.exists() and not path.is_file():  # to read a pipe would never end
        raise ValueError("it is no regular file")
    try:
        data = json.loads(path.read_bytes().decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"it has more than {DEEPEST} levels") from None
    _check(data)
    return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _check(data: Any) -> None:
    level = [data]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise ValueError(f"it has more than {DEEPEST} levels")


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair cannot be written again
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number in it is too large")
    return value if isinstance(value, list) else []


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
