"""What the networks' outputs tell beyond accuracy."""

from __future__ import annotations

from report.formats import spread
from report.frames.analysis import Analyses, measures_frame
from report.frames.frame import Frames
from report.statistics.intervals import Summary, summarise
from report.table_model import Column, Entry, Table


def outputs_table(analyses: Analyses, frames: Frames) -> Table | None:
    """Return a row a (pair, method) with analysed runs, or none without any."""
    measured = measures_frame(analyses, frames)
    if measured.empty:
        return None
    columns = {"nll": 3, "ece": 2, "agreement": 2, "teacher_kl": 3}
    rows = []
    for (pair, method), runs in measured.groupby(["pair", "method"], sort=False):
        entries = [Entry(pair), Entry(method), Entry(str(len(runs)), sort=len(runs))]
        entries += [_entry(summarise(runs[name].dropna()), n) for name, n in columns.items()]
        rows.append(tuple(entries))
    return Table(
        key="outputs",
        title="Beyond accuracy",
        caption="From the stored logits over the evaluated images, mean ± sample standard "
        "deviation over the analysed runs. A student alone stands once, with its first pair.",
        columns=(
            Column("Pair", number=False, filter=True),
            Column("Method", number=False, filter=True),
            Column("Runs"),
            Column("Negative log-\nlikelihood (nats)"),
            Column("Calibration\nerror (%)"),
            Column("Same prediction\nas teacher (%)"),
            Column("KL(teacher ‖\nstudent) (nats)"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def _entry(found: Summary, decimals: int) -> Entry:
    return Entry(spread(found, decimals), sort=found.mean)
