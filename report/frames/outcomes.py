"""The outcomes of a study's runs, as counts and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from report.formats import plural
from report.frames.study_frames import Frames


def failed_runs(frames: Frames) -> pd.DataFrame:
    """Return the runs that failed or cannot be read, each once, with their reasons."""
    failed = frames.runs[frames.runs["outcome"].isin(["failed", "unreadable"])]
    return failed.drop_duplicates("id")


def collapsed_runs(frames: Frames) -> pd.DataFrame:
    """Return the runs whose simplified teacher has collapsed, each once."""
    return frames.runs[frames.runs["collapsed"].eq(True)].drop_duplicates("id")


def outcome_counts(frames: Frames) -> dict[str, int]:
    """Return the number of distinct runs by outcome."""
    return dict(Counter(state.outcome for state in frames.run_states.values()))


def outcome_phrase(counts: Mapping[str, int]) -> str:
    """Return the counts as a phrase: how many of the expected runs are done, and the rest."""
    total = sum(counts.values())
    names = {"missing": "not run"}
    rest = [
        f"{counts[kind]} {names.get(kind, kind)}"
        for kind in ("failed", "unreadable", "interrupted", "running", "missing")
        if counts.get(kind)
    ]
    return ", ".join([f"{counts.get('done', 0)} of {plural(total, 'run')} done", *rest])
