"""The state of one run or teacher in the store. An unreadable one is an outcome, not an error."""

from __future__ import annotations

from dataclasses import dataclass

from skd.store.outcomes import run_outcome
from skd.store.records import Failure, Record
from skd.store.store import Store, StoreEntry, StoreError

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class RunState:
    """A run's outcome, with its record or failure note if it has one."""

    outcome: str
    reason: str | None = None
    record: Record | None = None
    failure: Failure | None = None


def read_run_state(store: Store, entry: StoreEntry, seed: int) -> RunState:
    """Return the state of an entry of the store. A damaged file is an outcome, not an error."""
    try:
        record = entry.record()
        state = None if record else run_outcome(entry, seed)
        if state is not None and state.outcome == "done":  # it finished after the first read
            record = entry.record()
    except StoreError as error:
        return RunState(UNREADABLE, with_relative_paths(str(error), store))
    if record is not None:
        return RunState("done", record=record)
    failure = entry.failure_or_none() if state.outcome == "failed" else None
    return RunState(
        state.outcome, state.reason and with_relative_paths(state.reason, store), failure=failure
    )


def with_relative_paths(text: str, store: Store) -> str:
    """Return a text with absolute paths of the store replaced by relative ones."""
    return text.replace(f"{store.root}/", "")
