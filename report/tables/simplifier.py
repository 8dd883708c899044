"""The table of the simplifier's effect on the teacher at the end of training."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from report.formats import divergence, mean_and_sd, number
from report.frames.cells import PairFinding
from report.frames.study_frames import (
    DIAGNOSTIC_PREFIX,
    Frames,
    last_diagnostic_epochs,
    simplifier_columns,
)
from report.tables.table import ReportTable, TableColumn, TableEntry


def simplifier_table(frames: Frames, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return a row for each (pair, method with a simplifier), or ``None`` without diagnostics."""
    diagnostics = last_diagnostics(frames.epochs)
    rows = [
        (
            TableEntry(pair.pair),
            TableEntry(cell.method, link=cell.anchor),
            TableEntry(
                mean_and_sd(cell.last),
                sort=cell.last.mean,
                marks=tuple((m.kind, m.text) for m in cell.marks if m.kind == "collapsed"),
            ),
            *_entries(diagnostics.loc[pair.pair, cell.method]),
        )
        for pair in pairs
        for cell in pair.cells
        if (pair.pair, cell.method) in diagnostics.index
    ]
    if not rows:
        return None
    return ReportTable(
        key="simplifier",
        title="Effect of the simplifier on the teacher",
        caption="The student's top-1 accuracy in percent is the mean ± sample standard deviation "
        "over seeds. The other columns are means over seeds in the last epoch, on the training "
        "views: entropy (nats) and top-1 accuracy (percent) of the softened teacher before and "
        "after the simplifier, and the KL divergences from softened to simplified teacher and "
        "from simplified teacher to student (nats). If the teacher is unchanged, KL(softened ‖ "
        "simplified) is near 0 and the method is the same as with the softened teacher. A "
        "collapsed teacher has lost much of its accuracy or nearly all of its information.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, holds="method"),
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
    """Return the diagnostics of the last epoch, averaged over the runs of each (pair, method)."""
    last = last_diagnostic_epochs(epochs)
    means = last.groupby(["pair", "method"])[simplifier_columns(last)].mean()
    return means.rename(columns=lambda name: name.removeprefix(DIAGNOSTIC_PREFIX))


def _entries(values: pd.Series) -> tuple[TableEntry, ...]:
    def change(before: str, after: str, decimals: int) -> TableEntry:
        text = f"{number(values[before], decimals)} → {number(values[after], decimals)}"
        return TableEntry(text, sort=values[after])

    return (
        change("entropy_softened", "entropy_simplified", 2),
        change("top1_raw", "top1_simplified", 1),
        *(
            TableEntry(divergence(values[name]), sort=values[name])
            for name in ("kl_softened_simplified", "kl_simplified_student")
        ),
    )
