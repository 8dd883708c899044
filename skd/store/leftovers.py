"""What killed processes have left in folders of runs, teachers and studies. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skd.common.lease import LeaseHeldError, hold_lease, read_holder
from skd.common.temporary_files import abandoned_files, temporary_files
from skd.store.store import StoreEntry

# What a run needs until it is finished. Leases are not among them: who tidies up holds one.
UNFINISHED = ("checkpoint*.pt", "failure.json", "progress.json")


def leftover_files(entry: StoreEntry) -> list[Path]:
    """Return what a run that is finished, or about to be, needs no more.

    To be removed by who holds its lease: then nobody else writes these files.
    """
    found = [path for pattern in UNFINISHED for path in entry.folder.glob(pattern)]
    return [*found, *temporary_files(entry.folder)]


def remove_leftovers(entry: StoreEntry) -> None:
    """Remove what killed processes have left of a finished run or teacher.

    Nothing is done where it is not finished, where somebody else holds its lease, and where the
    folder cannot be written, as in a store of others.
    """
    if not (leftover_files(entry) or [*entry.folder.glob("lease-*.json")]) or not _finished(entry):
        return
    held = read_holder(entry.folder)
    if held is not None and held.is_clock_ahead:  # it would have to be watched: not worth the time
        return
    refused = contextlib.suppress(OSError, LeaseHeldError)
    with refused, hold_lease(entry.folder, wait=False):
        if _finished(entry):  # nobody has begun it anew meanwhile
            remove_files(leftover_files(entry))


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files, of which some may have been removed meanwhile. What is none stays."""
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class LeftoverCount:
    """How much was left, for a person."""

    files: int
    size: int  # in bytes

    def __str__(self) -> str:
        plural = "" if self.files == 1 else "s"
        return (
            f"{self.files} leftover temporary file{plural} of killed processes, "
            f"{self.size / 1e6:.1f} MB; the next command that writes there removes them"
        )


def count_leftovers(entries: Iterable[StoreEntry], folders: Iterable[Path]) -> LeftoverCount:
    """Return how much is left in the folders of runs and teachers, and in those of studies."""
    found = [path for entry in entries for path in _left_in(entry)]
    found += [path for folder in folders for path in abandoned_files(folder)]
    sizes = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            sizes.append(path.stat().st_size)
    return LeftoverCount(len(sizes), sum(sizes))


def _left_in(entry: StoreEntry) -> list[Path]:
    held = read_holder(entry.folder)
    if held is not None and held.is_alive():
        return []
    views = [path for folder in entry.folder.glob("views-*") for path in abandoned_files(folder)]
    if not _finished(entry):
        return [*temporary_files(entry.folder), *views]
    return [*leftover_files(entry), *entry.folder.glob("lease-*.json"), *views]


def _finished(entry: StoreEntry) -> bool:
    if entry.record_path.exists():
        return entry.finished()
    return entry.card_path.is_file()  # of an imported teacher
