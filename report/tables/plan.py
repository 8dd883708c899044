"""What was planned, beside what finished runs took: ``results/<study>/plan.json``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from report.formats import duration, number
from report.frames.study_frames import Frames
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.planning.stored_plan import StudyPlan, expansion_digest, plan_path, read_plan
from skd.store.records import Record
from skd.store.store import Store, StoreError
from skd.study.expansion import Expansion


@dataclass(frozen=True)
class PlanRow:
    """Finished trainings of one kind, in device-seconds."""

    name: str
    finished: int
    planned: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Measured over planned; none where nothing was planned."""
        return self.measured / self.planned if self.planned else None


@dataclass(frozen=True)
class PlanComparison:
    """A plan beside the records.

    Attributes:
        plan: as it was made.
        rows: teachers, each method, all; those with finished trainings.
        wall_seconds: from the first start to the last finish; none where records do not tell.
    """

    plan: StudyPlan
    rows: tuple[PlanRow, ...]
    wall_seconds: float | None

    @property
    def mean_concurrency(self) -> float | None:
        """Trainings at a time, on average, or none."""
        return self.rows[-1].measured / self.wall_seconds if self.wall_seconds else None


def read_plan_comparison(
    expansion: Expansion, frames: Frames, results: Path
) -> tuple[PlanComparison | None, str | None]:
    """Return the comparison, or none and, where there is a plan that does not serve, why."""
    path = plan_path(results, expansion.study)
    if not path.is_file():
        return None, None
    plan = read_plan(path)
    if plan is None:
        return None, f"{path.name} cannot be read; skd plan {expansion.study} makes it anew"
    if plan.expansion != expansion_digest(expansion):
        return None, f"{path.name} was made for other runs: the sheet or the code has changed"
    return compare_with_plan(plan, expansion, frames, Store(results)), None


def compare_with_plan(
    plan: StudyPlan, expansion: Expansion, frames: Frames, store: Store
) -> PlanComparison:
    """Return planned and measured device-seconds of what is finished; a shared run counts once."""
    taught = _teacher_records(expansion, store)
    rows = [_row("teachers", ((plan.teachers[n].seconds, r) for n, r in taught.items()))]
    seen: set[str] = set()
    finished: dict[str, list[tuple[float, Record]]] = {}
    for cell in expansion.cells:
        for identity in cell.runs.values():
            record = frames.run_states[identity].record
            if record is not None and identity not in seen:
                seen.add(identity)
                planned = plan.cells[cell.key].seconds
                finished.setdefault(cell.method, []).append((planned, record))
    rows += [_row(name, finished[name]) for name in expansion.methods if name in finished]
    rows = [row for row in rows if row.finished]
    whole = PlanRow(
        "in all",
        sum(row.finished for row in rows),
        sum(row.planned for row in rows),
        sum(row.measured for row in rows),
    )
    students = (record for found in finished.values() for _, record in found)
    return PlanComparison(plan, (*rows, whole), wall_seconds([*taught.values(), *students]))


def wall_seconds(records: Iterable[Record]) -> float | None:
    """Return the seconds from the first start to the last finish, or none where none is told.

    A record says when a run finished and how long it trained; when an interrupted one began, it
    does not say.
    """
    spans = []
    for record in records:
        try:
            end = datetime.fromisoformat(record.finished_at)
        except ValueError:
            continue
        known = record.cost.train_seconds if record.cost.sessions == 1 else 0.0
        spans.append((end - timedelta(seconds=known), end))
    if not spans:
        return None
    try:
        return (max(end for _, end in spans) - min(start for start, _ in spans)).total_seconds()
    except TypeError:  # with and without a time zone
        return None


def plan_sentence(comparison: PlanComparison) -> str:
    """Return for what the plan was made, and when."""
    plan = comparison.plan
    model = "" if plan.device == plan.device_model else f", modelled as {plan.device_model}"
    return f"Planned {plan.made_at} for {plan.device}{model}, each training alone on its device."


def wall_sentence(comparison: PlanComparison) -> str | None:
    """Return how long it took from first start to last finish beside what was simulated."""
    if comparison.wall_seconds is None or comparison.mean_concurrency is None:
        return None
    simulated = ", ".join(
        f"{duration(seconds)} on {devices}"
        for devices, seconds in sorted(comparison.plan.wall_seconds.items())
    )
    return (
        f"From the first start to the last finish: {duration(comparison.wall_seconds)}, "
        f"{number(comparison.mean_concurrency, 1)} trainings at a time. Simulated for what was left then, by "
        f"devices: {simulated}."
    )


def sharing_sentence(comparison: PlanComparison) -> str | None:
    """Return that runs were to share a device, or none where they were not."""
    together = comparison.plan.side_by_side
    if together == 1:
        return None
    return (
        f"Runs were to share a device, {together or 'as many as fit'} at a time: each may then "
        "take longer than alone."
    )


def plan_table(comparison: PlanComparison) -> ReportTable:
    """Return the comparison as a table."""
    sentences = (
        plan_sentence(comparison),
        "Device-time of what is finished; a run shared by pairs counts once.",
        sharing_sentence(comparison),
        wall_sentence(comparison),
    )
    return ReportTable(
        key="plan",
        title="Plan and reality",
        caption=" ".join(sentence for sentence in sentences if sentence),
        columns=(
            TableColumn("Method", number=False),
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


def _row(name: str, finished: Iterable[tuple[float, Record]]) -> PlanRow:
    pairs = list(finished)
    return PlanRow(
        name,
        len(pairs),
        sum(planned for planned, _ in pairs),
        sum(record.cost.train_seconds for _, record in pairs),
    )


def _teacher_records(expansion: Expansion, store: Store) -> dict[str, Record]:
    """Return the readable records of teachers trained here, by the teachers' names."""
    records = {}
    for node in expansion.teachers:
        try:
            record = store.teacher(node.id).record()
        except StoreError:
            continue
        if record is not None:
            records[node.name] = record
    return records
