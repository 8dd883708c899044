"""Planned device time compared with measured time, from ``results/<study>/plan.json``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from report.frames.study_frames import Frames
from skd.planning.simulate import count_useful
from skd.planning.stored_plan import StudyPlan, expansion_digest, plan_path, read_plan
from skd.store.records import Record
from skd.store.store import Store, StoreError
from skd.study.expansion import Expansion


@dataclass(frozen=True)
class PlanRow:
    """Finished trainings of one method, or of the teachers, in device-seconds."""

    name: str
    finished: int
    planned: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Measured over planned; ``None`` if nothing was planned."""
        return self.measured / self.planned if self.planned else None


@dataclass(frozen=True)
class PlanComparison:
    """A plan compared with the records of the finished trainings.

    Attributes:
        plan: the stored plan.
        rows: the teachers, each method, and the total; only those with finished trainings.
        wall_seconds: from the first start to the last finish; ``None`` if the records do not
            contain it.
        device_seconds: the device-seconds of the finished trainings. Trainings that share a GPU
            share its time.
        unfinished: the number of teachers and runs without a record.
    """

    plan: StudyPlan
    rows: tuple[PlanRow, ...]
    wall_seconds: float | None
    device_seconds: float
    unfinished: int

    @property
    def mean_concurrency(self) -> float | None:
        """Mean number of trainings that ran at the same time, or ``None``."""
        return self.rows[-1].measured / self.wall_seconds if self.wall_seconds else None

    @property
    def mean_devices(self) -> float | None:
        """Mean number of devices at work, or ``None``. A training has its own cores of a CPU."""
        return self.device_seconds / self.wall_seconds if self.wall_seconds else None

    @property
    def forecast(self) -> list[tuple[int, float]]:
        """The simulated numbers of devices with their seconds, up to the last that saves time."""
        times = sorted(self.plan.wall_seconds.items())
        return times[: count_useful([seconds for _, seconds in times])]

    @property
    def simulated(self) -> tuple[int, float] | None:
        """The simulated number of devices that is nearest to the measured one, with its seconds.

        ``None`` if the two times are not of the same trainings: some were finished before the plan
        was made, or are not finished yet.
        """
        if self.plan.done or self.unfinished or not self.mean_devices or not self.plan.wall_seconds:
            return None
        measured = self.mean_devices
        nearest = min(self.plan.wall_seconds, key=lambda count: abs(math.log(count / measured)))
        return nearest, self.plan.wall_seconds[nearest]


def read_plan_comparison(
    expansion: Expansion, frames: Frames, results: Path
) -> tuple[PlanComparison | None, str | None]:
    """Return the comparison, and why a stored plan cannot be used.

    Both are ``None`` if there is no plan.
    """
    path = plan_path(results, expansion.study)
    if not path.is_file():
        return None, None
    plan = read_plan(path)
    if plan is None:
        return None, f"{path.name} cannot be read; skd plan {expansion.study} writes it again"
    if plan.expansion != expansion_digest(expansion):
        return None, f"{path.name} was made for other runs: the sheet or the code has changed"
    return compare_with_plan(plan, expansion, frames, Store(results)), None


def compare_with_plan(
    plan: StudyPlan, expansion: Expansion, frames: Frames, store: Store
) -> PlanComparison:
    """Return planned and measured device-seconds of the finished trainings.

    A run that several pairs share counts once.
    """
    teachers = _teacher_records(expansion, store)
    rows = [_row("teachers", ((plan.teachers[n].seconds, r) for n, r in teachers.items()))]
    counted: set[str] = set()
    by_method: dict[str, list[tuple[float, Record]]] = {}
    for cell in expansion.cells:
        for identity in cell.runs.values():
            record = frames.run_states[identity].record
            if record is not None and identity not in counted:
                counted.add(identity)
                planned = plan.cells[cell.key].seconds
                by_method.setdefault(cell.method, []).append((planned, record))
    rows += [_row(name, by_method[name]) for name in expansion.methods if name in by_method]
    rows = [row for row in rows if row.finished]
    ids = {identity for cell in expansion.cells for identity in cell.runs.values()}
    trained = {node.name for node in expansion.teachers if node.spec.kind == "trained"}
    total = PlanRow(
        "in all",
        sum(row.finished for row in rows),
        sum(row.planned for row in rows),
        sum(row.measured for row in rows),
    )
    students = (record for finished in by_method.values() for _, record in finished)
    records = [*teachers.values(), *students]
    return PlanComparison(
        plan=plan,
        rows=(*rows, total),
        wall_seconds=wall_seconds(records),
        device_seconds=sum(map(_device_seconds, records)),
        unfinished=len(ids - counted) + len(trained - teachers.keys()),
    )


def wall_seconds(records: Iterable[Record]) -> float | None:
    """Return the seconds from the first start to the last finish, or ``None`` if unknown.

    A record contains when a run finished and how long it trained. It does not contain when an
    interrupted run started.
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
    except TypeError:  # some times have a time zone and some do not
        return None


def _device_seconds(record: Record) -> float:
    """Return the seconds of devices that a training used alone, or its share of them."""
    execution = record.execution
    sharing = 1 if execution.get("device") == "cpu" else execution.get("sharing", 1)
    return record.cost.train_seconds * execution.get("processes", 1) / sharing


def _row(name: str, finished: Iterable[tuple[float, Record]]) -> PlanRow:
    pairs = list(finished)
    return PlanRow(
        name,
        len(pairs),
        sum(planned for planned, _ in pairs),
        sum(record.cost.train_seconds for _, record in pairs),
    )


def _teacher_records(expansion: Expansion, store: Store) -> dict[str, Record]:
    """Return the readable records of teachers trained by this project, by teacher name."""
    records = {}
    for node in expansion.teachers:
        try:
            record = store.teacher(node.id).record()
        except StoreError:
            continue
        if record is not None:
            records[node.name] = record
    return records
