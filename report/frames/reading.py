"""One run or teacher as the store holds it. What cannot be read is an outcome, not an error."""

from __future__ import annotations

from dataclasses import dataclass

from skd.store.records import Failure, Record
from skd.store.store import Entry, Store, StoreError, outcome

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
    try:
        record = entry.record()
        state = None if record else outcome(entry, seed)
        if state is not None and state.outcome == "done":  # since
            record = entry.record()
    except StoreError as error:
        return Reading(UNREADABLE, within(str(error), store))
    if record is not None:
        return Reading("done", record=record)
    failure = entry.failed() if state.outcome == "failed" else None
    return Reading(state.outcome, state.reason and within(state.reason, store), failure=failure)


def within(text: str, store: Store) -> str:
    """Return a text with paths as they are within the store, not on this machine."""
    return text.replace(f"{store.root}/", "")
