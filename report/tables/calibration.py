"""The table of measures of the networks' outputs beyond accuracy."""

from __future__ import annotations

from report.formats import mean_and_sd
from report.frames.analysis import StudyAnalysis, measures_frame
from report.frames.study_frames import Frames
from report.statistics.intervals import Summary, summarise
from report.tables.table import ReportTable, TableColumn, TableEntry


def calibration_table(analyses: StudyAnalysis, frames: Frames) -> ReportTable | None:
    """Return a row for each (pair, method) with analysed runs, or ``None`` without any."""
    measured = measures_frame(analyses, frames)
    if measured.empty:
        return None
    decimals = {"nll": 3, "ece": 2, "agreement": 2, "teacher_kl": 3}
    rows = []
    for (pair, method), runs in measured.groupby(["pair", "method"], sort=False):
        entries = [TableEntry(pair), TableEntry(method), TableEntry(str(len(runs)), sort=len(runs))]
        entries += [_entry(summarise(runs[name].dropna()), n) for name, n in decimals.items()]
        rows.append(tuple(entries))
    return ReportTable(
        key="outputs",
        title="Beyond accuracy",
        caption="Computed from the stored logits of the evaluated images, mean ± sample standard "
        "deviation over the analysed runs. A student alone is listed once, with its first pair.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, filter=True, holds="method"),
            TableColumn("Runs"),
            TableColumn("Negative log-\nlikelihood (nats)"),
            TableColumn("Calibration\nerror (%)"),
            TableColumn("Same prediction\nas teacher (%)"),
            TableColumn("KL(teacher ‖\nstudent) (nats)"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def _entry(summary: Summary, decimals: int) -> TableEntry:
    return TableEntry(mean_and_sd(summary, decimals), sort=summary.mean)
