"""Whether finished runs were trained by today's code, in columns, marks and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from report.formats import plural
from skd.code.accepted import Acceptance
from skd.store.records import Record
from skd.store.stale import UNKNOWN_CODE, code_changes_of, code_state_of, files_text, runs_text

CODE_COLUMNS = ["code", "code_files", "code_state"]
OTHER_CODE = "other"


def code_values(
    record: Record, today: Mapping[str, str], accepted: Iterable[Acceptance]
) -> dict[str, Any]:
    """Return the columns of a finished run: which code trained it, and the files that changed.

    Args:
        record: of the run.
        today: digests of its files as they are now, by path; empty: not known.
        accepted: changes that left the numbers as they were.
    """
    changes = code_changes_of(record.code, today, accepted)
    files = ", ".join(changes) if changes else None
    kind = OTHER_CODE if changes else code_state_of(changes)
    return {"code": kind, "code_files": files, "code_state": code_state_of(changes)}


def code_marks(cell: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (kind, text) of what must be said of the code that trained a cell's runs.

    A cell whose runs' code is not known of any is not marked: the page says that once.

    Args:
        cell: its rows of the frame of runs.
    """
    done = cell[cell["outcome"] == "done"]
    counts = done["code"].value_counts()
    other, unknown = int(counts.get(OTHER_CODE, 0)), int(counts.get(UNKNOWN_CODE, 0))
    states = done["code_state"].nunique()
    said = []
    if other:
        said.append(f"{other} of {len(done)} by other code: {files_text(_files(done))}")
    if unknown and states > 1:
        said.append(f"{unknown} of {len(done)} by unknown code")
    mixes = "mixes code: " if states > 1 else ""
    return [("mixed", mixes + "; ".join(said))] if said else []


def code_sentences(runs: pd.DataFrame) -> list[str]:
    """Return what must be said of the code that trained a study's runs, as sentences."""
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    other, unknown = done[done["code"] == OTHER_CODE], done[done["code"] == UNKNOWN_CODE]
    mixed = done.groupby(["pair", "method"])["code_state"].nunique()
    sentences = []
    if len(other):
        sentences.append(
            f"{runs_text(len(other), 'was', 'were')} trained by other code than today's: "
            f"{files_text(_files(other))} changed since, and the numbers may have, too."
        )
    if count := int((mixed > 1).sum()):
        sentences.append(
            f"In {plural(count, 'cell')} the seeds were not all trained by the same code: the "
            "means mix what may be different methods."
        )
    if len(unknown):
        sentences.append(
            f"{runs_text(len(unknown), 'does', 'do')} not say which code trained "
            f"{'it' if len(unknown) == 1 else 'them'}: code unknown."
        )
    return sentences


def _files(runs: pd.DataFrame) -> Counter[str]:
    return Counter(path for files in runs["code_files"].dropna() for path in files.split(", "))
