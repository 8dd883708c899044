"""One run or teacher as the store holds it. What cannot be read is an outcome, not an error."""

from __future__ import annotations

from dataclasses import dataclass

from skd.records import CellOutcome, Failure, Record
from skd.store import Entry, Store, StoreError, outcome

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Reading:
    """One run as it was found: its outcome, and its record or failure note if it has one."""

    outcome: str
    reason: str | None = None
    record: Record | None = None
    failure: Failure | None = None


def read_run(store: Store, entry: Entry, seed: int) -> Reading:
    """Return what an entry of the store holds. A damaged file is an outcome, not an error."""
    state: CellOutcome | None = None
    failure = None
    try:
        record = entry.record()
        if record is None:
            state = outcome(entry, seed)
            failure = entry.failure() if state.outcome == "failed" else None
            record = entry.record() if state.outcome == "done" else None
    except (StoreError, OSError) as error:
        return Reading(UNREADABLE, described(error, store))
    if record is None:
        assert state is not None
        return Reading(state.outcome, state.reason, failure=failure)
    if record.id != entry.id:
        return Reading(UNREADABLE, f"the record names another run: {record.id}")
    accuracies = (record.last.top1, record.last.top5, record.best.top1, record.best.top5)
    if not all(0 <= accuracy <= 100 for accuracy in accuracies):
        return Reading(UNREADABLE, "the record's accuracy is no percentage")
    if max(value for _, value in record.cost if isinstance(value, int)) >= 2**63:
        return Reading(UNREADABLE, "the record's cost is no number that a machine can have")
    return Reading("done", record=record)


def described(error: Exception, store: Store) -> str:
    """Return an error of the store with paths as they are within it, not on this machine."""
    return str(error).replace(f"{store.root}/", "")
