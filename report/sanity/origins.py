"""Checks of where the runs come from: code, machines, and teachers' weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from report.formats import join_names, plural
from report.frames.cells import PairFinding
from report.frames.code_columns import OTHER_CODE, code_files
from report.frames.study_frames import Frames
from report.names import Names
from report.sanity.doubts import Doubt, name_some
from skd.analyses.consistency import RecordChecks
from skd.store.stale import TODAYS_CODE, UNKNOWN_CODE, files_text
from skd.study.expansion import Expansion

CODE_WORDS = {
    TODAYS_CODE: "the current code",
    OTHER_CODE: "another version of the code",
    UNKNOWN_CODE: "an unknown version",
}


def pooled_code(frames: Frames, names: Names) -> list[Doubt]:
    """Return whether the runs and teachers were trained by the current code, and by one code."""
    runs = frames.runs
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    of_runs, unknown = done[done["code"] == OTHER_CODE], (done["code"] == UNKNOWN_CODE).any()
    pooled = done["code_state"].nunique() > 1
    files, teachers = code_files(of_runs), _teachers_of_other_code(frames)
    subjects = [] if pooled or of_runs.empty else [_all_runs(len(done))]
    if teachers:
        files.update(file for name in teachers for file in teachers[name].split(", "))
        labels = name_some([names.network(name) for name in teachers])
        subjects.append(f"teacher{'s' * (len(teachers) > 1)} {labels}")
    doubts = [_several_codes(done)] if pooled else []
    if subjects:
        text = join_names(subjects)
        were = "was" if text.startswith(("the ", "teacher ")) and len(subjects) == 1 else "were"
        text = (
            f"{text[0].upper()}{text[1:]} {were} trained by another version of the code "
            f"({files_text(files)}), so the current code may give other numbers."
        )
        doubts.append(Doubt("other-code", "note", text))
    if unknown and not pooled:
        text = (
            "The records do not contain the version of the code that trained the runs, so it "
            "cannot be compared with the current code."
        )
        doubts.append(Doubt("unknown-code", "note", text))
    return doubts


def _several_codes(done: pd.DataFrame) -> Doubt:
    counts = Counter(done["code"])
    phrases = [f"{counts[code]} by {words}" for code, words in CODE_WORDS.items() if counts[code]]
    files = code_files(done)
    changed = f" (changed: {files_text(files)})" if files else ""
    if len(phrases) == 1:  # several other versions
        phrases = [f"{len(done)} by {done['code_state'].nunique()} other versions"]
    cells = done.groupby(["pair", "method"])["code_state"].nunique()
    text = (
        f"Runs of different versions of the code are pooled: {join_names(phrases)}{changed}. "
        "Differences between methods may come from the code."
    )
    if within := int((cells > 1).sum()):
        text += f" In {plural(within, 'cell')} even the seeds of one method differ in it."
    return Doubt("pooled-code", "caution", text)


def _teachers_of_other_code(frames: Frames) -> dict[str, str]:
    """Return the files that have changed since teachers were trained, by teacher."""
    teachers = frames.teachers.to_dict("records")
    return {row["name"]: row["other_code"] for row in teachers if row["other_code"]}


def pooled_machines(frames: Frames) -> list[Doubt]:
    """Return whether the runs come from different devices, versions of torch or precisions."""
    records = frames.records
    runs = frames.runs[frames.runs["id"].isin(records)].drop_duplicates("id")
    precisions = [records[identity].execution.get("precision") for identity in runs["id"]]
    columns = {
        "": runs["device"],
        "torch ": runs["torch"],
        "precision ": pd.Series(precisions, dtype=object),
    }
    phrases = []
    for label, values in columns.items():
        counts = Counter(value for value in values.dropna())
        if len(counts) > 1:
            listed = [f"{value} ({plural(n, 'run')})" for value, n in counts.most_common()]
            phrases.append(label + name_some(listed))
    if not phrases:
        return []
    text = (
        f"Runs of different machines or software are pooled: {'; '.join(phrases)}. Their rounding "
        "differs, and their times cannot be compared."
    )
    return [Doubt("pooled-machines", "caution", text)]


def contradicted_records(checks: RecordChecks, expansion: Expansion) -> list[Doubt]:
    """Return the runs and teachers whose stored files contradict their records or cards.

    The current records and cards are compared with the files as the last `skd analyse` read them.
    """
    lines = tuple(checks.lines(expansion))
    if not lines:
        return []
    counts = ((len(checks.runs), "run"), (len(checks.teachers), "teacher"))
    found = join_names([plural(count, noun) for count, noun in counts if count])
    text = (
        f"Stored files contradict the accuracy that is recorded for {found}. These results are "
        "included, but should not be trusted."
    )
    return [Doubt("contradicted-records", "caution", text, lines)]


def pooled_teachers(pairs: Sequence[PairFinding], names: Names) -> list[Doubt]:
    """Return the pairs whose runs had teachers with different weights."""
    mixed = [names.pair(pair) for pair in pairs if pair.has_mixed_teachers]
    if not mixed:
        return []
    text = (
        f"The runs of {name_some(mixed)} had teachers with different weights, so their comparisons "
        "differ in more than the method."
    )
    return [Doubt("pooled-teachers", "caution", text)]


def _all_runs(count: int) -> str:
    return "the finished run" if count == 1 else f"all {count} finished runs"
