"""Which runs show whether a change of the code leaves the numbers as they were. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skd.code.accepted import CodeChanges
from skd.common.frozen import canonical, digest
from skd.store.stale import FinishedRun

EXECUTION_FIELDS = (
    "device",
    "step",
    "precision",
    "teacher",
    "compiled",
    "kernels",
)  # of an execution


@dataclass
class ChangedRuns:
    """Runs whose code has changed in the same way, each by those of the files that are its own."""

    changes: CodeChanges = field(default_factory=dict)
    runs: list[FinishedRun] = field(default_factory=list)

    def fits(self, run: FinishedRun) -> bool:
        """Return whether a run's changes are not at odds with those of the others."""
        return all(
            self.changes.get(path, digests) == digests for path, digests in run.changed.items()
        )

    def add(self, run: FinishedRun) -> None:
        """Add a run that fits."""
        self.changes |= run.changed
        self.runs.append(run)


def group_by_changes(runs: Sequence[FinishedRun]) -> list[ChangedRuns]:
    """Return the runs whose code has changed, by the way in which it has."""
    groups: list[ChangedRuns] = []
    for run in runs:
        if not run.changed:
            continue
        group = next((group for group in groups if group.fits(run)), None)
        if group is None:
            groups.append(group := ChangedRuns())
        group.add(run)
    return groups


def group_by_kind(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Return the runs by kind: those of one kind differ in their seed alone.

    They have the same networks, data, terms and settings, and were executed in the same way, so
    that what a change does to one of them it does to the others.
    """
    kinds: dict[str, list[FinishedRun]] = {}
    for run in runs:
        record = run.entry.record()
        spec = {name: value for name, value in canonical(record.spec).items() if name != "seed"}
        ways = {name: record.execution.get(name) for name in EXECUTION_FIELDS}
        kinds.setdefault(digest([spec, ways]), []).append(run)
    return list(kinds.values())
