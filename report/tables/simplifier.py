"""What SKD's simplifier made of the teacher by the end of training."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from report.formats import mean_and_sd, number
from report.frames.cells import PairFinding
from report.frames.study_frames import DIAGNOSTIC_PREFIX, Frames, last_diagnostic_epochs
from report.tables.table import ReportTable, TableColumn, TableEntry


def simplifier_table(frames: Frames, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return a row a (pair, method with a simplifier), or none where none was watched."""
    seen = last_diagnostics(frames.epochs)
    rows = [
        (
            TableEntry(pair.pair),
            TableEntry(cell.method, link=cell.anchor),
            TableEntry(
                mean_and_sd(cell.last),
                sort=cell.last.mean,
                marks=tuple((m.kind, m.text) for m in cell.marks if m.kind == "collapsed"),
            ),
            *_entries(seen.loc[pair.pair, cell.method]),
        )
        for pair in pairs
        for cell in pair.cells
        if (pair.pair, cell.method) in seen.index
    ]
    if not rows:
        return None
    return ReportTable(
        key="simplifier",
        title="What the simplifier made of the teacher",
        caption="In the last epoch, on the training views, mean over seeds: entropy (nats) and "
        "top-1 accuracy (percent) of the softened teacher before and after the simplifier; the KL "
        "divergences of the softened from the simplified teacher, and of the latter from the "
        "student (nats). Beside them the student's top-1 accuracy, mean ± sample standard "
        "deviation. An unchanged teacher has KL 0 and teaches as KD does; one that has collapsed "
        "teaches nothing.",
        columns=(
            TableColumn("Pair", number=False, filter=True),
            TableColumn("Method", number=False),
            TableColumn("Student's\ntop-1"),
            TableColumn("Entropy"),
            TableColumn("Teacher's\ntop-1"),
            TableColumn("KL(softened ‖\nsimplified)"),
            TableColumn("KL(simplified ‖\nstudent)"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def last_diagnostics(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return the last epoch's diagnostics, mean over the runs of each (pair, method)."""
    last = last_diagnostic_epochs(epochs)
    columns = [name for name in last.columns if name.startswith(DIAGNOSTIC_PREFIX)]
    means = last.groupby(["pair", "method"])[columns].mean()
    return means.rename(columns=lambda name: name.removeprefix(DIAGNOSTIC_PREFIX))


def _entries(seen: pd.Series) -> tuple[TableEntry, ...]:
    def change(before: str, after: str, decimals: int) -> TableEntry:
        text = f"{number(seen[before], decimals)} → {number(seen[after], decimals)}"
        return TableEntry(text, sort=seen[after])

    return (
        change("entropy_softened", "entropy_simplified", 2),
        change("top1_raw", "top1_simplified", 1),
        *(
            TableEntry(number(seen[name], 3), sort=seen[name])
            for name in ("kl_softened_simplified", "kl_simplified_student")
        ),
    )
