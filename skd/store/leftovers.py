"""Files that killed processes left in folders of runs, teachers and studies. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skd.common.lease import LeaseHeldError, hold_lease, read_holder
from skd.common.temporary_files import abandoned_files, temporary_files
from skd.store.store import StoreEntry

# Files that a run needs only until it is finished. Lease files are removed with their lease.
UNFINISHED = ("checkpoint*.pt", "failure.json", "progress.json")


def leftover_files(entry: StoreEntry) -> list[Path]:
    """Return the files that a run does not need once it is finished.

    Only the holder of the run's lease may remove them: then no other process writes them.
    """
    files = [path for pattern in UNFINISHED for path in entry.folder.glob(pattern)]
    return [*files, *temporary_files(entry.folder)]


def remove_leftovers(entry: StoreEntry) -> None:
    """Remove the files that killed processes left of a finished run or teacher.

    Nothing is removed if it is not finished, if another process holds its lease, or if the folder
    cannot be written.
    """
    leases = [*entry.folder.glob("lease-*.json")]
    if not (leftover_files(entry) or leases) or not _is_finished(entry):
        return
    holder = read_holder(entry.folder)
    if holder is not None and holder.is_clock_ahead:  # taking over would mean watching it
        return
    refused = contextlib.suppress(OSError, LeaseHeldError)
    with refused, hold_lease(entry.folder, wait=False):
        if _is_finished(entry):  # no other process has started it again in the meantime
            remove_files(leftover_files(entry))


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files; missing files and folders are skipped."""
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class LeftoverCount:
    """Number and size of leftover files."""

    files: int
    size: int  # in bytes

    def __str__(self) -> str:
        plural = "" if self.files == 1 else "s"
        return (
            f"{self.files} leftover temporary file{plural} of killed processes, "
            f"{self.size / 1e6:.1f} MB; the next command that writes there removes them"
        )


def count_leftovers(entries: Iterable[StoreEntry], folders: Iterable[Path]) -> LeftoverCount:
    """Return number and size of the leftover files.

    Args:
        entries: runs and teachers.
        folders: folders of studies.
    """
    paths = [path for entry in entries for path in _leftovers_of(entry)]
    paths += [path for folder in folders for path in abandoned_files(folder)]
    sizes = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # removed in the meantime
            sizes.append(path.stat().st_size)
    return LeftoverCount(len(sizes), sum(sizes))


def _leftovers_of(entry: StoreEntry) -> list[Path]:
    holder = read_holder(entry.folder)
    if holder is not None and holder.is_alive():
        return []
    views = [path for folder in entry.folder.glob("views-*") for path in abandoned_files(folder)]
    if not _is_finished(entry):
        return [*temporary_files(entry.folder), *views]
    return [*leftover_files(entry), *entry.folder.glob("lease-*.json"), *views]


def _is_finished(entry: StoreEntry) -> bool:
    if entry.record_path.exists():
        return entry.is_finished()
    return entry.card_path.is_file()  # an imported teacher has no record
