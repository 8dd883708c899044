"""The state of a study with estimates: what is done, what is left. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from skd.planning.batches import JobShape, make_batches
from skd.planning.devices import PlannedDevice
from skd.planning.estimates import Estimate, estimate_run, estimate_teacher, views_seconds
from skd.planning.job_graph import PlannedJob, shared_seconds, study_jobs
from skd.planning.job_place import CLUSTER, JobPlace
from skd.planning.side_by_side import runs_side_by_side
from skd.planning.timings import Timings
from skd.planning.views_choice import ViewsConfig, ViewsPlan, check_views_request, plan_views
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion


@dataclass(frozen=True)
class SurveyRow:
    """A row of the table: numbers of trainings, and device-seconds of the unfinished ones."""

    name: str
    trainings: int
    left: int
    seconds_left: float
    sources: dict[str, int]


@dataclass(frozen=True)
class Survey:
    """The estimates of a study, and what is unfinished.

    Attributes:
        expansion: the study.
        device: the device that it is planned for.
        side_by_side: the number of runs that share a device; ``None``: as many as fit.
        teachers: the estimate of each teacher, by name.
        cells: the estimate of one run of each cell, by the cell's key.
        teachers_left: the names of the teachers that are not ready.
        seeds: the seeds of each cell's runs, by key; a run that two cells share counts for the
            first of them.
        seeds_left: the seeds of the runs without a record, by the cell's key.
        views: the teacher views that the study stores, by the teacher's name.
        views_left: the seconds to store those that are missing and that unfinished runs use, by the
            teacher's name.
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
        """The number of finished runs and teachers."""
        runs = sum(map(len, self.seeds.values())) - sum(map(len, self.seeds_left.values()))
        return runs + len(self.teachers) - len(self.teachers_left)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train or to store."""
        return not (self.teachers_left or self.views_left or any(self.seeds_left.values()))

    def runs_side_by_side_of(self, *keys: str) -> int:
        """Return how many runs of some cells share the device; 1 if several devices train a run."""
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
        """Return the device-seconds of a number of runs of a cell."""
        return shared_seconds(self.cells[key], runs, self.runs_side_by_side_of(key))

    @cached_property
    def whole_seconds(self) -> dict[str, float]:
        """The device-seconds of all runs of each cell, finished or not."""
        return {
            cell.key: self.seconds_of(cell.key, len(cell.runs)) for cell in self.expansion.cells
        }

    @cached_property
    def cell_seconds(self) -> dict[str, float]:
        """The device-seconds of the unfinished runs of each cell that has any."""
        left = {key: len(seeds) for key, seeds in self.seeds_left.items() if seeds}
        return {key: self.seconds_of(key, runs) for key, runs in left.items()}

    @cached_property
    def teacher_seconds(self) -> dict[str, float]:
        """The device-seconds of each teacher that is not ready."""
        return {name: self.teachers[name].seconds for name in sorted(self.teachers_left)}

    def jobs(self, shape: JobShape, place: JobPlace = CLUSTER) -> tuple[PlannedJob, ...]:
        """Return the jobs of the unfinished runs, in the batches of the whole study.

        Args:
            shape: the size of a job.
            place: where the jobs run, which says how long they take to start.
        """
        batches = make_batches(self.expansion, shape, lambda: self.whole_seconds).batches
        names = {f"{batch.pair}/{name}": batch.path for batch in batches for name in batch.methods}
        views = {name: (self.views_left[name], self.views[name].cells) for name in self.views_left}
        teachers, startup = self.teacher_seconds, place.startup_seconds
        return study_jobs(self.expansion, teachers, self.cell_seconds, names, views, startup)

    def parts(self) -> dict[str, list[SurveyRow]]:
        """Return the rows of the table by their headings: teachers, methods, pairs, all."""
        cells = self.expansion.cells
        teachers = self._teachers()
        views = self._views()
        everything = self._part("in all", cells)
        return {
            "teachers": [teachers, views] if views.trainings else [teachers],
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
        stored = sum(plan.done for plan in self.views.values())
        seconds = sum(self.views_left.values())
        return SurveyRow(
            "teacher views", stored + left, left, seconds, {"model": left} if left else {}
        )


def survey_study(
    expansion: Expansion,
    store: Store,
    timings: Timings,
    device: PlannedDevice,
    side_by_side: int | None = 1,
    views_config: ViewsConfig | None = None,
) -> Survey:
    """Return the state of a study with its estimates. A run with a readable record is done.

    Args:
        expansion: the study.
        store: the store, with the teachers' cards.
        timings: the timings of the store, one for each readable record.
        device: the device to plan for.
        side_by_side: the number of runs that share a device; ``None``: as many as fit.
        views_config: which teachers' views are stored; ``None``: those that save time.
    """
    entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
    views_config = views_config or ViewsConfig()
    check_views_request(expansion.cells, views_config.teacher_views)
    views = plan_views(expansion, entries, views_config)
    with_views = frozenset().union(*(plan.cells for plan in views.values()))
    seeds: dict[str, tuple[int, ...]] = {}
    seeds_left: dict[str, tuple[int, ...]] = {}
    counted: set[str] = set()
    for cell in expansion.cells:
        runs = {seed: run for seed, run in cell.runs.items() if run not in counted}
        counted.update(runs.values())
        seeds[cell.key] = tuple(runs)
        seeds_left[cell.key] = tuple(
            seed for seed, run in runs.items() if f"runs/{run}" not in timings.rows
        )
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
            c.key: estimate_run(expansion, c, timings, device, c.key in with_views)
            for c in expansion.cells
        },
        teachers_left=frozenset(missing),
        seeds=seeds,
        seeds_left=seeds_left,
        views=views,
        views_left={
            name: views_seconds(expansion, plan, device)
            for name, plan in views.items()
            if not plan.done and any(seeds_left[key] for key in plan.cells)
        },
    )


def _sources(counted: Iterable[tuple[Estimate, int]]) -> dict[str, int]:
    """Return the number of unfinished trainings by the source of their estimates."""
    counts: Counter[str] = Counter()
    for estimate, count in counted:
        counts[estimate.source] += count
    return {source: count for source, count in counts.items() if count}
