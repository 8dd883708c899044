"""The overview of a study: states, progress, failures, logs, the projected end.

It uses only the store's files and SLURM's queue. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skd.common.terminal import format_duration
from skd.jobs import slurm
from skd.jobs.driver import driverless_jobs, job_comment
from skd.jobs.workers import history_log
from skd.planning.batches import read_batches
from skd.planning.survey import Survey
from skd.store.leftovers import LeftoverCount, count_leftovers
from skd.store.outcomes import cell_result, teacher_outcome
from skd.store.records import RunOutcome
from skd.store.stale import finished_runs, stale_lines
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion

# The words for the states, in the order in which they are printed.
STATES = {
    "done": "done",
    "running": "running",
    "queued": "queued",
    "failed": "failed",
    "unreadable": "unreadable",
    "interrupted": "started",
    "missing": "missing",
}


@dataclass(frozen=True)
class OverviewRow:
    """A teacher or a cell.

    Attributes:
        name: the teacher, as "teacher NAME", or the cell's method.
        counts: the number of runs in each state.
        accuracies: last top-1 of the finished runs, in percent.
        pair: the cell's pair, or its student without a teacher; ``None`` for a teacher.
    """

    name: str
    counts: Mapping[str, int]
    accuracies: tuple[float, ...] = ()
    pair: str | None = None

    @property
    def key(self) -> str:
        """The teacher's name, or the cell's key."""
        return self.name if self.pair is None else f"{self.pair}/{self.name}"


@dataclass
class StudyOverview:
    """A study at one moment.

    Attributes:
        title: the study's name and title.
        rows: the teachers, then the cells.
        lines: a line for each running, failed or unreadable run and for each waiting job.
        seconds_left: the remaining seconds of running runs, by their cell's key.
        running_jobs: the number of devices in use.
    """

    title: str
    rows: list[OverviewRow] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    seconds_left: dict[str, list[float]] = field(default_factory=dict)
    running_jobs: int = 0

    @property
    def totals(self) -> dict[str, int]:
        """The number of runs in each state, without teachers."""
        cells = [row.counts for row in self.rows if row.pair is not None]
        return {state: sum(counts.get(state, 0) for counts in cells) for state in STATES}

    @property
    def finished(self) -> bool:
        """Whether all teachers and runs are done."""
        return all(set(row.counts) == {"done"} for row in self.rows)


def study_overview(expansion: Expansion, store: Store, results: Path) -> StudyOverview:
    """Return the overview of a study."""
    overview = StudyOverview(f"{expansion.study}: {expansion.title}")
    queue_error = None
    try:
        queue = {job.comment: job for job in driverless_jobs(expansion.study, results)}
    except slurm.SlurmError as error:
        queue, queue_error = {}, error
    logs = results / expansion.study / "logs"
    holders: set[str] = set()
    for node in expansion.teachers:
        job = queue.get(job_comment("teacher", expansion.study, node.name, node.id))
        run, top1 = teacher_outcome(store, node.id)
        state = _state(run, job)
        named = node.partner is None or node.partner in node.name
        suits = "" if named else f" for {node.partner}"
        accuracies = () if top1 is None else (top1,)
        overview.rows.append(OverviewRow(f"teacher {node.name}{suits}", {state: 1}, accuracies))
        log = logs / "teachers" / f"{node.name}-{node.id}.log"
        entry = store.teacher(node.id)
        overview.lines += _lines(f"teacher {node.name}", run, state, entry, job, log, holders)
    batches = {
        f"{batch.pair}/{method}": batch
        for batch in read_batches(expansion, results).batches
        for method in batch.methods
    }
    for cell in expansion.cells:
        batch = batches[cell.key]
        job = queue.get(job_comment("train", expansion.study, batch.pair, batch.name, batch.digest))
        counts: dict[str, int] = {}
        accuracies: list[float] = []
        for run in cell_result(expansion, cell, store).runs:
            state = _state(run, job)
            counts[state] = counts.get(state, 0) + 1
            if run.last_top1 is not None:
                accuracies.append(run.last_top1)
            entry = store.run(run.id)
            label, log = f"{cell.key} seed {run.seed}", logs / f"{batch.path}.log"
            overview.lines += _lines(label, run, state, entry, job, log, holders)
            if state == "running" and (progress := entry.progress()) is not None:
                overview.seconds_left.setdefault(cell.key, []).append(progress.seconds_left)
        overview.rows.append(OverviewRow(cell.method, counts, tuple(accuracies), cell.pair))
    if queue_error is not None and not overview.finished:
        overview.lines.insert(0, str(queue_error))
    overview.lines += stale_lines(expansion.study, finished_runs(expansion, store))
    overview.lines += [_waiting(job) for job in queue.values() if job.is_pending]
    if (leftovers := _count_leftovers(expansion, store, results)).files:
        overview.lines.append(str(leftovers))
    overview.running_jobs = len(holders)
    return overview


def _count_leftovers(expansion: Expansion, store: Store, results: Path) -> LeftoverCount:
    """Return the number and size of the temporary files that killed processes left of a study."""
    runs = [identity for cell in expansion.cells for identity in cell.runs.values()]
    teachers = [store.teacher(node.id) for node in expansion.teachers]
    study = results / expansion.study
    report = study / "report"
    folders = [study, study / "driver", report]
    folders += [path for path in report.glob("*") if path.is_dir()]
    return count_leftovers([*map(store.run, dict.fromkeys(runs)), *teachers], folders)


def projected_seconds(overview: StudyOverview, survey: Survey) -> float | None:
    """Return the seconds to the end with the devices that are in use; ``None`` if none is.

    The device-seconds come from the estimates of `skd plan` and from the progress of running runs.
    They are divided by the number of devices; the result is at least the time of the longest run.
    """
    if not overview.running_jobs:
        return None
    total = longest = sum(survey.teacher_seconds.values())
    for key, seeds in survey.seeds_left.items():
        running = overview.seconds_left.get(key, [])
        waiting = max(0, len(seeds) - len(running))
        total += survey.seconds_of(key, waiting) + sum(running) / survey.runs_side_by_side_of(key)
        longest = max(longest, *running, survey.cells[key].seconds if waiting else 0.0, 0.0)
    return max(longest, total / overview.running_jobs)


def _state(run: RunOutcome, job: slurm.SlurmJob | None) -> str:
    unfinished = run.outcome in ("missing", "interrupted", "failed")
    return "queued" if unfinished and job is not None and job.is_pending else run.outcome


def _lines(
    label: str,
    run: RunOutcome,
    state: str,
    entry: StoreEntry,
    job: slurm.SlurmJob | None,
    log: Path,
    holders: set[str],
) -> Iterator[str]:
    """Yield a line on a running, failed or unreadable run; add its process to the holders."""
    if state == "running":
        holders.add(f"job {job.id}" if job else str(run.reason))
        progress = entry.progress()
        state_text = "starting"
        if progress:
            state_text = (
                f"epoch {progress.epoch + 1}/{progress.epochs}, "
                f"{progress.images_per_second:.0f} images/s, "
                f"{format_duration(progress.seconds_left)} left"
            )
        yield f"{label}: {state_text}; {run.reason}; {history_log(log)}"
    elif state == "failed":
        yield f"{label} ({run.id}) failed: {run.reason}; {history_log(log)}"
    elif state == "unreadable":
        yield f"{label} ({run.id}) is unreadable: {run.reason}"


def _waiting(job: slurm.SlurmJob) -> str:
    return f"SLURM job {job.id} waits ({job.reason}): {job.comment.split('_wildcards_')[-1]}"
