"""The table of planned and measured device time."""

from __future__ import annotations

from report.formats import duration, number
from report.frames.plan_comparison import PlanComparison
from report.tables.table import ReportTable, TableColumn, TableEntry


def plan_table(comparison: PlanComparison) -> ReportTable:
    """Return the comparison as a table."""
    sentences = (
        plan_sentence(comparison),
        "Device time of the finished trainings; a run that several pairs share counts once.",
        sharing_sentence(comparison),
        wall_sentence(comparison),
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
    return f"Planned {plan.made_at} for {plan.device}{model}, each training alone on its device."


def sharing_sentence(comparison: PlanComparison) -> str | None:
    """Return how many runs were planned to share a device; ``None`` if each had its own."""
    together = comparison.plan.side_by_side
    if together == 1:
        return None
    return (
        f"Runs were planned to share a device, {together or 'as many as fit'} at a time, so each "
        "may take longer than alone."
    )


def wall_sentence(comparison: PlanComparison) -> str | None:
    """Return the time from the first start to the last finish, and the simulated time."""
    if comparison.wall_seconds is None or comparison.mean_concurrency is None:
        return None
    simulated = ", ".join(
        f"{duration(seconds)} on {devices}"
        for devices, seconds in sorted(comparison.plan.wall_seconds.items())
    )
    return (
        f"From the first start to the last finish: {duration(comparison.wall_seconds)}, "
        f"{number(comparison.mean_concurrency, 1)} trainings at a time. Simulated for the runs "
        f"that were not finished when the plan was made, by number of devices: {simulated}."
    )
