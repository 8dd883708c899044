"""A process that is killed just before one of its operations that change files, chosen by number.

Python calls an audit hook for each file that is opened for writing, renamed, linked or removed, and
for each folder that is made, but not for `os.fsync`, writes and truncations, so that
these are replaced. A write is cut in half: a killed process may leave an incomplete file.
"""

import builtins
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Dying:
    """Counts this process's operations under a folder, and kills it before the chosen one.

    An audit hook cannot be removed: create one only in a process that ends with it.

    Args:
        folder: operations elsewhere are not counted.
        fatal: number of the operation, from 1; 0: the process is not killed.
    """

    def __init__(self, folder: Path, fatal: int = 0) -> None:
        self.folder, self.fatal, self.count = f"{folder.resolve()}/", fatal, 0
        self._open, self._fsync = io.open, os.fsync
        io.open = builtins.open = self.open
        os.fsync = self.fsync
        sys.addaudithook(self.hear)

    def inside(self, path: Any) -> bool:
        """Whether a path is under the folder; an open file's number counts as elsewhere."""
        if isinstance(path, int):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder)  # noqa: PTH100

    def operation(self) -> bool:
        """Count an operation; return whether it is the fatal one."""
        self.count += 1
        return self.count == self.fatal

    def die(self) -> None:
        """End as by kill -9: nothing is flushed or cleaned up."""
        os.kill(os.getpid(), signal.SIGKILL)

    def step(self) -> None:
        """Count an operation, and die before the fatal one."""
        if self.operation():
            self.die()

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        opened = event == "open" and arguments[2] & WRITING
        if (opened or event in CHANGES) and self.inside(arguments[0]):
            self.step()

    def fsync(self, descriptor: int) -> None:
        """Count an `os.fsync`."""
        self.step()
        self._fsync(descriptor)

    def open(
        self, file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **named: Any
    ) -> Any:
        """Open a file whose writes are counted."""
        if not set(mode) & set("wax+") or not self.inside(file):
            return self._open(file, mode, buffering, *arguments, **named)
        raw = _Torn(self, file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *arguments, **named)


class _Torn(io.FileIO):
    def __init__(self, process: Dying, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._process = process

    def write(self, data: Any) -> int:
        if self._process.operation():
            super().write(memoryview(data)[: len(data) // 2])
            self._process.die()
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._process.step()
        return super().truncate(size)
