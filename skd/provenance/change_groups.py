"""Groups of runs that show whether a change of the code changes the numbers. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skd.code.accepted import CodeChanges
from skd.common.frozen import canonical, digest
from skd.store.stale import FinishedRun

# Fields of an execution that distinguish kinds of runs.
EXECUTION_FIELDS = ("device", "step", "precision", "teacher", "compiled", "kernels")


@dataclass
class ChangedRuns:
    """Runs whose code has changed in the same way, as far as they have the same files.

    Attributes:
        changes: digests before and after, by path, of the files of all runs.
        runs: the runs.
    """

    changes: CodeChanges = field(default_factory=dict)
    runs: list[FinishedRun] = field(default_factory=list)

    def fits(self, run: FinishedRun) -> bool:
        """Return whether a run's changes are consistent with those of the others."""
        return all(
            self.changes.get(path, digests) == digests for path, digests in run.changed.items()
        )

    def add(self, run: FinishedRun) -> None:
        """Add a run whose changes are consistent."""
        self.changes |= run.changed
        self.runs.append(run)


def group_by_changes(runs: Sequence[FinishedRun]) -> list[ChangedRuns]:
    """Return the runs whose code has changed, grouped by their changes."""
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
    """Return the runs grouped by kind: runs of one kind differ only in their seed.

    They have the same networks, data, terms and settings, and were executed in the same way. A
    change of the code therefore affects all of them in the same way.
    """
    kinds: dict[str, list[FinishedRun]] = {}
    for run in runs:
        record = run.entry.record()
        spec = {name: value for name, value in canonical(record.spec).items() if name != "seed"}
        execution = {name: record.execution.get(name) for name in EXECUTION_FIELDS}
        kinds.setdefault(digest([spec, execution]), []).append(run)
    return list(kinds.values())
