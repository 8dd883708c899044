"""Whether finished runs were trained by the current code: as columns, marks and sentences."""

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


def code_marks(cell: pd.DataFrame) -> list[tuple[str, str]]:
    """Return marks, as (kind, text), on the code that trained a cell's runs.

    A cell has no mark if the code of all its runs is unknown: the page says that once.

    Args:
        cell: the cell's rows of the frame of runs.
    """
    done = cell[cell["outcome"] == "done"]
    counts = done["code"].value_counts()
    other, unknown = int(counts.get(OTHER_CODE, 0)), int(counts.get(UNKNOWN_CODE, 0))
    states = done["code_state"].nunique()
    phrases = []
    if other:
        phrases.append(f"{other} of {len(done)} by other code: {files_text(_files(done))}")
    if unknown and states > 1:
        phrases.append(f"{unknown} of {len(done)} by unknown code")
    mixes = "mixes code: " if states > 1 else ""
    return [("mixed", mixes + "; ".join(phrases))] if phrases else []


def code_sentences(runs: pd.DataFrame) -> list[str]:
    """Return warnings about the code that trained a study's runs, as sentences."""
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    other, unknown = done[done["code"] == OTHER_CODE], done[done["code"] == UNKNOWN_CODE]
    mixed = done.groupby(["pair", "method"])["code_state"].nunique()
    sentences = []
    if len(other):
        sentences.append(
            f"{runs_text(len(other), 'was', 'were')} trained by a different version of "
            f"the code ({files_text(_files(other))}), so the current code may give other numbers."
        )
    if count := int((mixed > 1).sum()):
        sentences.append(
            f"In {plural(count, 'cell')} the seeds were trained by different versions of the code, "
            "so the means may mix different methods."
        )
    if len(unknown):
        sentences.append(
            f"{runs_text(len(unknown), 'was', 'were')} trained by unknown code: "
            f"{'its record does' if len(unknown) == 1 else 'their records do'} not contain the "
            "version of the code."
        )
    return sentences


def _files(runs: pd.DataFrame) -> Counter[str]:
    return Counter(path for files in runs["code_files"].dropna() for path in files.split(", "))
