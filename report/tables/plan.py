"""The table of planned and measured device time."""

from __future__ import annotations

from collections import Counter

from report.formats import duration, join_names, number, plural
from report.frames.plan_comparison import PlanComparison
from report.tables.table import ReportTable, TableColumn, TableEntry

# By the source of an estimate.
SOURCES = {
    "measured": "from finished trainings of the same kind",
    "scaled": "from the model, scaled by finished trainings",
    "model": "from the model alone",
}


def plan_table(comparison: PlanComparison) -> ReportTable:
    """Return the comparison as a table."""
    sentences = (
        plan_sentence(comparison),
        basis_sentence(comparison),
        "Device time of the finished trainings; a run that several pairs share counts once.",
        sharing_sentence(comparison),
        wall_sentence(comparison),
        forecast_sentence(comparison),
    )
    return ReportTable(
        key="plan",
        title="Plan and reality",
        caption=" ".join(sentence for sentence in sentences if sentence),
        columns=(
            TableColumn("Method", number=False, holds="method"),
            TableColumn("Finished"),
            TableColumn("Planned"),
            TableColumn("Measured"),
            TableColumn("Measured / planned"),
        ),
        rows=tuple(
            (
                TableEntry(row.name),
                TableEntry(str(row.finished)),
                TableEntry(duration(row.planned)),
                TableEntry(duration(row.measured)),
                TableEntry(number(row.ratio)),
            )
            for row in comparison.rows
        ),
    )


def plan_sentence(comparison: PlanComparison) -> str:
    """Return when the plan was made, and for which device."""
    plan = comparison.plan
    model = "" if plan.device == plan.device_model else f", modelled as {plan.device_model}"
    day = plan.made_at.partition("T")[0]
    return f"Planned on {day} for {plan.device}{model}, each training alone on its device."


def basis_sentence(comparison: PlanComparison) -> str:
    """Return what the planned times rest on, and how many trainings were already finished."""
    plan = comparison.plan
    counts = Counter(item.source for item in (*plan.teachers.values(), *plan.cells.values()))
    shares = [f"{counts[source]} {text}" for source, text in SOURCES.items() if counts[source]]
    finished = f", when {plural(plan.done, 'training was', 'trainings were')} finished"
    return f"Its times are {join_names(shares)}{finished if plan.done else ''}."


def sharing_sentence(comparison: PlanComparison) -> str | None:
    """Return how many runs were planned to share a device; ``None`` if each had its own."""
    together = comparison.plan.side_by_side
    if together == 1 or comparison.plan.device_model == "cpu":
        return None
    return (
        f"Runs were planned to share a device, {together or 'as many as fit'} at a time, so each "
        "may take longer than alone."
    )


def wall_sentence(comparison: PlanComparison) -> str | None:
    """Return the time from the first start to the last finish, beside the simulated time."""
    concurrency, devices = comparison.mean_concurrency, comparison.mean_devices
    if comparison.wall_seconds is None or concurrency is None or devices is None:
        return None
    on_devices = "" if devices == concurrency else f" on {number(devices, 1)} devices"
    measured = (
        f"From the first start to the last finish: {duration(comparison.wall_seconds)}, on average "
        f"{number(concurrency, 1)} trainings at a time{on_devices}"
    )
    if comparison.simulated is None:
        return f"{measured}."
    count, seconds = comparison.simulated
    return f"{measured}; the plan simulated {duration(seconds)} on {plural(count, 'device')}."


def forecast_sentence(comparison: PlanComparison) -> str | None:
    """Return the simulated times of an unfinished study; ``None`` if it is finished.

    Numbers of devices that save no time are left out.
    """
    if not comparison.unfinished or not comparison.forecast:
        return None
    texts = [
        f"{duration(seconds)} on {plural(count, 'device')}"
        for count, seconds in comparison.forecast
    ]
    return f"Simulated for the trainings that were left when it was planned: {join_names(texts)}."
