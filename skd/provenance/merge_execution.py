"""Bringing checked entries into the store, each whole or not at all. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from skd.common.files import sync_folder
from skd.common.lease import LeaseHeldError, LeaseLostError, hold_lease
from skd.common.temporary_files import temporary_name
from skd.provenance.merge_plan import MergeConflict, MergeError, MergePlan, MergeStep, plan_entry
from skd.provenance.source_checks import entry_stamp
from skd.store.leftovers import leftover_files, remove_files
from skd.store.store import Store

CHUNK_BYTES = 2**20


def execute_merge(plan: MergePlan, store: Store, on_step: Callable[[], None]) -> None:
    """Carry out a plan without conflicts. Stopped anywhere, it can be planned and merged again.

    Args:
        plan: what to do.
        store: what is merged into.
        on_step: called after each step.

    Raises:
        MergeError: something changed since it was checked, or cannot be written; what was
            brought before stays.
    """
    for number, step in enumerate(plan.steps):
        where = f"{step.finished.kind} {step.here.id}"
        try:
            _bring(step, store)
        except (OSError, MergeError, LeaseHeldError, LeaseLostError) as error:
            raise MergeError(
                f"{where}: {error}. {number} of {len(plan.steps)} were brought before it; once "
                "that is put right, the same command goes on"
            ) from error
        on_step()


def _bring(step: MergeStep, store: Store) -> None:
    """Bring one entry under its lease, so that nobody trains it meanwhile: its record last.

    Checkpoints go after that: stopped before, the run here has lost nothing.
    """
    there, here = step.finished.entry, step.here
    with hold_lease(here.folder, wait=False) as still_mine:
        if entry_stamp(there) != step.finished.stamp:
            raise MergeError("it has been changed since it was checked")
        record, card = there.record(), there.card() if step.finished.kind == "teacher" else None
        if isinstance(now := plan_entry(step.finished, here, store), MergeConflict):
            raise MergeError(f"since it was checked, {now.why}")
        for name in step.files:
            copy_verified(there.folder / name, here.folder / name, step.finished.files[name])
        still_mine()
        if record is not None and here.record() is None:
            here.write_spec(record.spec)
            here.write(record)
        if card is not None and here.card() is None:
            here.write(card)
        remove_files(leftover_files(here))


def copy_verified(source: Path, target: Path, sha256: str) -> None:
    """Copy a file so that there is the whole file or none; what a kill left of it is removed.

    Raises:
        MergeError: the copy has not the SHA-256.
    """
    for stale in target.parent.glob(f".{target.name}.*"):
        stale.unlink()
    temporary = temporary_name(target)
    state = hashlib.sha256()
    try:
        with source.open("rb") as reading, temporary.open("wb") as writing:
            while chunk := reading.read(CHUNK_BYTES):
                state.update(chunk)
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        if state.hexdigest() != sha256:
            raise MergeError(f"{source} has been changed since it was checked")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
