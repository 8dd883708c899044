"""A study as it stands: what is done, what is left, and what that takes. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from skd.planning.batches import JobShape, make_batches
from skd.planning.devices import PlannedDevice
from skd.planning.estimates import Estimate, estimate_run, estimate_teacher, views_seconds
from skd.planning.job_graph import PlannedJob, shared_seconds, study_jobs
from skd.planning.side_by_side import runs_side_by_side
from skd.planning.timings import Timings
from skd.planning.views_choice import ViewsConfig, ViewsPlan, plan_views
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion


@dataclass(frozen=True)
class SurveyRow:
    """A line of the table: trainings counted, and device-seconds of those that are left."""

    name: str
    trainings: int
    left: int
    seconds_left: float
    sources: dict[str, int]


@dataclass(frozen=True)
class Survey:
    """What is left of a study, estimated.

    Attributes:
        expansion: the study.
        device: what it is planned for.
        side_by_side: runs that share a device; none: as many as fit.
        teachers: estimates by name.
        cells: estimates of one run by the cell's key.
        teachers_left: names of those not at hand.
        seeds: of each cell's runs, by key; a run that two cells share is the first one's.
        seeds_left: those without a record.
        views: of teachers that are stored, by the teacher's name.
        views_left: seconds of those that are not there yet.
    """

    expansion: Expansion
    device: PlannedDevice
    side_by_side: int | None
    teachers: dict[str, Estimate]
    cells: dict[str, Estimate]
    teachers_left: frozenset[str]
    seeds: dict[str, tuple[int, ...]]
    seeds_left: dict[str, tuple[int, ...]]
    views: dict[str, ViewsPlan]
    views_left: dict[str, float]

    @property
    def done(self) -> int:
        """Finished runs and teachers at hand."""
        runs = sum(map(len, self.seeds.values())) - sum(map(len, self.seeds_left.values()))
        return runs + len(self.teachers) - len(self.teachers_left)

    def runs_side_by_side_of(self, *keys: str) -> int:
        """Return how many of some cells' runs share the device; one where several train it."""
        if self.device.processes > 1:
            return 1
        return runs_side_by_side(
            self.side_by_side,
            sum(len(self.expansion.cell_by_key(key).runs) for key in keys),
            self.device.model.memory_bytes,
            max(self.cells[key].device_bytes for key in keys),
            max(self.cells[key].utilisation_or_one for key in keys),
        )

    def seconds_of(self, key: str, runs: int) -> float:
        """Return the device-seconds of so many runs of a cell."""
        return shared_seconds(self.cells[key], runs, self.runs_side_by_side_of(key))

    @cached_property
    def whole_seconds(self) -> dict[str, float]:
        """Device-seconds of each cell as if nothing were done."""
        return {
            cell.key: self.seconds_of(cell.key, len(cell.runs)) for cell in self.expansion.cells
        }

    @cached_property
    def cell_seconds(self) -> dict[str, float]:
        """Device-seconds of each cell with runs left."""
        left = {key: len(seeds) for key, seeds in self.seeds_left.items() if seeds}
        return {key: self.seconds_of(key, runs) for key, runs in left.items()}

    @cached_property
    def teacher_seconds(self) -> dict[str, float]:
        """Device-seconds of each teacher that is not at hand."""
        return {name: self.teachers[name].seconds for name in sorted(self.teachers_left)}

    def jobs(self, shape: JobShape) -> tuple[PlannedJob, ...]:
        """Return the jobs of what is left, in the batches of the whole study."""
        batches = make_batches(self.expansion, shape, lambda: self.whole_seconds).batches
        names = {f"{batch.pair}/{name}": batch.path for batch in batches for name in batch.methods}
        views = {name: (self.views_left[name], self.views[name].cells) for name in self.views_left}
        return study_jobs(self.expansion, self.teacher_seconds, self.cell_seconds, names, views)

    def parts(self) -> dict[str, list[SurveyRow]]:
        """Return the lines of the table under their headings: teachers, methods, pairs, all."""
        cells = self.expansion.cells
        teachers = self._teachers()
        views = self._views()
        everything = self._part("in all", cells)
        return {
            "teachers": [teachers, views] if self.views else [teachers],
            "methods": self._grouped(lambda cell: cell.method),
            "pairs": self._grouped(lambda cell: cell.pair),
            "all": [
                SurveyRow(
                    "in all",
                    everything.trainings + teachers.trainings,
                    everything.left + teachers.left,
                    everything.seconds_left + teachers.seconds_left + views.seconds_left,
                    dict(Counter(everything.sources) + Counter(teachers.sources)),
                )
            ],
        }

    def _grouped(self, name: Callable[[Cell], str]) -> list[SurveyRow]:
        groups: dict[str, list[Cell]] = {}
        for cell in self.expansion.cells:
            groups.setdefault(name(cell), []).append(cell)
        return [self._part(group, cells) for group, cells in groups.items()]

    def _part(self, name: str, cells: Iterable[Cell]) -> SurveyRow:
        keys = [cell.key for cell in cells]
        left = {key: len(self.seeds_left[key]) for key in keys}
        return SurveyRow(
            name,
            sum(len(self.seeds[key]) for key in keys),
            sum(left.values()),
            sum(self.cell_seconds.get(key, 0.0) for key in keys),
            _sources((self.cells[key], count) for key, count in left.items()),
        )

    def _teachers(self) -> SurveyRow:
        return SurveyRow(
            "teachers",
            len(self.teachers),
            len(self.teachers_left),
            sum(self.teacher_seconds.values()),
            _sources((self.teachers[name], 1) for name in sorted(self.teachers_left)),
        )

    def _views(self) -> SurveyRow:
        left = len(self.views_left)
        seconds = sum(self.views_left.values())
        return SurveyRow(
            "teacher views", len(self.views), left, seconds, {"model": left} if left else {}
        )


def survey_study(
    expansion: Expansion,
    store: Store,
    timings: Timings,
    device: PlannedDevice,
    side_by_side: int | None = 1,
    views_config: ViewsConfig | None = None,
) -> Survey:
    """Return what is done and left of a study. A run with a readable record is done.

    Args:
        expansion: the study.
        store: where its teachers' cards are.
        timings: of the store; they know every readable record.
        device: what to plan for.
        side_by_side: runs that share a device; none: as many as fit.
        views_config: which teachers' views are to be stored; none: those that are worth it.
    """
    entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
    views = plan_views(expansion, entries, views_config or ViewsConfig())
    looked_up = frozenset().union(*(plan.cells for plan in views.values()))
    owned: dict[str, tuple[int, ...]] = {}
    left: dict[str, tuple[int, ...]] = {}
    seen: set[str] = set()
    for cell in expansion.cells:
        own = {seed: run for seed, run in cell.runs.items() if run not in seen}
        seen.update(own.values())
        owned[cell.key] = tuple(own)
        left[cell.key] = tuple(s for s, run in own.items() if f"runs/{run}" not in timings.rows)
    teachers = {
        node.name: estimate_teacher(expansion, node, timings, device) for node in expansion.teachers
    }
    missing = [node.name for node in expansion.teachers if not entries[node.name].has_card()]
    return Survey(
        expansion=expansion,
        device=device,
        side_by_side=side_by_side,
        teachers=teachers,
        cells={
            c.key: estimate_run(expansion, c, timings, device, c.key in looked_up)
            for c in expansion.cells
        },
        teachers_left=frozenset(missing),
        seeds=owned,
        seeds_left=left,
        views=views,
        views_left={
            name: views_seconds(expansion, plan, device)
            for name, plan in views.items()
            if not plan.done
        },
    )


def _sources(counted: Iterable[tuple[Estimate, int]]) -> dict[str, int]:
    """Return how many of the trainings left have which kind of estimate."""
    found: Counter[str] = Counter()
    for estimate, count in counted:
        found[estimate.source] += count
    return {source: count for source, count in found.items() if count}
