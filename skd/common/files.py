"""Writing files atomically, and reading JSON. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from skd.common.temporary_files import abandoned_files, temporary_name

MAX_JSON_DEPTH = 100  # nested lists and objects; this project's files have a few levels


class UnwritableError(OSError):
    """A path cannot be written. ``filename`` is the final path, never a temporary file."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


@contextlib.contextmanager
def naming_path_in_errors(path: Path) -> Iterator[None]:
    """Name a path in errors of writing it; many errors name none, such as that of a full disk.

    Raises:
        UnwritableError: from any OSError.
    """
    try:
        yield
    except UnwritableError:
        raise
    except OSError as error:
        raise UnwritableError(error.errno, error.strerror or str(error), str(path)) from error


def check_writable(path: Path) -> None:
    """Check before a long computation that its file can be written. Changes nothing.

    Raises:
        UnwritableError: the path is a folder, or its parent folder cannot be created or written.
    """
    with naming_path_in_errors(path):
        if path.is_dir():
            raise _os_error(errno.EISDIR)
        _check_folder(path.absolute().parent)


def check_writable_folder(folder: Path) -> None:
    """Check that files can be created in a folder, which need not exist. Changes nothing.

    Raises:
        UnwritableError: files cannot be created there.
    """
    with naming_path_in_errors(folder):
        _check_folder(folder.absolute())


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: after a crash the file is the old or the new one.

    Temporary files of killed processes for the same path are removed.

    Raises:
        UnwritableError: the path cannot be written.
    """
    with naming_path_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        for abandoned in abandoned_files(path.parent, path.name):
            abandoned.unlink(missing_ok=True)
        sync_folder(path.parent)


def expand_home(path: str | Path) -> Path:
    """Return a path with a leading ``~`` or ``~user`` expanded, if that home folder is known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  pathlib raises if it is unknown


def path_from_environment(variable: str) -> Path | None:
    """Return the path in an environment variable, ``~`` expanded; ``None`` if unset or empty."""
    value = os.environ.get(variable)
    return expand_home(value) if value else None


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk, so that renames survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming_path_in_errors(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically; NaN is refused, because it is not valid JSON."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. It can be printed and written again.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        ValueError: it is not a regular file, or not JSON in UTF-8; or it has NaN, Infinity, text
            that is not Unicode, or more than 100 levels.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise ValueError("it is not a regular file")
    try:
        data = json.loads(path.read_bytes().decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"it has more than {MAX_JSON_DEPTH} levels") from None
    _check(data)
    return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _check(data: Any) -> None:
    level = [data]
    for _ in range(MAX_JSON_DEPTH):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise ValueError(f"it has more than {MAX_JSON_DEPTH} levels")


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


def _check_folder(folder: Path) -> None:
    while not _exists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise _os_error(errno.ENOTDIR)
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        raise _os_error(errno.EROFS if read_only else errno.EACCES)


def _exists(path: Path) -> bool:
    """Return whether a path exists, dangling links included; raise for an impossible path."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
