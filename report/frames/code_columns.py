"""Whether finished runs were trained by the current code: as columns and as marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from report.formats import plural
from skd.code.accepted import Acceptance
from skd.store.records import Record
from skd.store.stale import UNKNOWN_CODE, code_changes_of, code_state_of, files_text

CODE_COLUMNS = ["code", "code_files", "code_state"]
OTHER_CODE = "other"


def code_values(
    record: Record, today: Mapping[str, str], accepted: Iterable[Acceptance]
) -> dict[str, Any]:
    """Return a finished run's values by `CODE_COLUMNS`.

    Args:
        record: the run's record.
        today: digests of the run's source files in the current code, by path; empty if unknown.
        accepted: changes of the code that did not change any numbers.
    """
    changes = code_changes_of(record.code, today, accepted)
    files = ", ".join(changes) if changes else None
    kind = OTHER_CODE if changes else code_state_of(changes)
    return {"code": kind, "code_files": files, "code_state": code_state_of(changes)}


def code_marks(cell: pd.DataFrame, states: int) -> list[tuple[str, str, str]]:
    """Return marks, as (kind, text, hint), on the code that trained a cell's runs.

    Cells have no marks if one version of the code trained all runs of the study: a mark on every
    row says nothing.

    Args:
        cell: the cell's rows of the frame of runs.
        states: number of versions of the code among the study's finished runs.
    """
    done = cell[cell["outcome"] == "done"]
    counts = done["code"].value_counts()
    other, unknown = int(counts.get(OTHER_CODE, 0)), int(counts.get(UNKNOWN_CODE, 0))
    if states < 2 or not other + unknown:
        return []
    phrases = []
    if other:
        phrases.append(
            f"{other} of {plural(len(done), 'run')} by another version of the code "
            f"({files_text(code_files(done))})"
        )
    if unknown:
        phrases.append(f"{unknown} of {plural(len(done), 'run')} by an unknown version of the code")
    text = "other code" if other else "unknown code"
    if done["code_state"].nunique() > 1:
        text = "mixed code"
    return [("mixed", text, "; ".join(phrases))]


def code_files(runs: pd.DataFrame) -> Counter[str]:
    """Return the source files that have changed since, with the number of runs of each."""
    return Counter(path for files in runs["code_files"].dropna() for path in files.split(", "))
