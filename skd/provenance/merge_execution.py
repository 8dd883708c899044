"""Carrying out a merge: copying checked entries into the store, each atomically. No torch."""

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
    """Carry out a plan without conflicts. If it is interrupted, the merge can be planned again.

    Args:
        plan: the plan.
        store: the store to merge into.
        on_step: called after each step.

    Raises:
        MergeError: an entry changed after the check, or cannot be written. The entries merged
            before it stay in the store.
    """
    for number, step in enumerate(plan.steps):
        label = f"{step.source.kind} {step.target.id}"
        try:
            _execute_step(step, store)
        except (OSError, MergeError, LeaseHeldError, LeaseLostError) as error:
            raise MergeError(
                f"{label}: {error}. {number} of {len(plan.steps)} were merged before it; solve "
                "this problem, then run the same command again to continue"
            ) from error
        on_step()


def _execute_step(step: MergeStep, store: Store) -> None:
    """Merge one entry while holding its lease, so that no other process trains it.

    The record is written after all files, and checkpoints are removed last: an interrupted merge
    loses no state of the run.
    """
    source, target = step.source.entry, step.target
    with hold_lease(target.folder, wait=False) as check_lease:
        if entry_stamp(source) != step.source.stamp:
            raise MergeError("it has been changed since it was checked")
        record, card = source.record(), source.card() if step.source.kind == "teacher" else None
        if isinstance(decision := plan_entry(step.source, target, store), MergeConflict):
            raise MergeError(f"since it was checked, {decision.why}")
        for name in step.files:
            copy_verified(source.folder / name, target.folder / name, step.source.files[name])
        check_lease()
        if record is not None and target.record() is None:
            target.write_spec(record.spec)
            target.write(record)
        if card is not None and target.card() is None:
            target.write(card)
        remove_files(leftover_files(target))


def copy_verified(source: Path, target: Path, sha256: str) -> None:
    """Copy a file atomically. Temporary files of interrupted copies are removed.

    Raises:
        MergeError: the SHA-256 of the copy is another one.
    """
    for stale in target.parent.glob(f".{target.name}.*"):
        stale.unlink()
    temporary = temporary_name(target)
    state = hashlib.sha256()
    try:
        with source.open("rb") as source_file, temporary.open("wb") as target_file:
            while chunk := source_file.read(CHUNK_BYTES):
                state.update(chunk)
                target_file.write(chunk)
            target_file.flush()
            os.fsync(target_file.fileno())
        if state.hexdigest() != sha256:
            raise MergeError(f"{source} has been changed since it was checked")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
