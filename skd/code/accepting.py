"""Which runs show whether a change of the code leaves the numbers as they were. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skd.code.accepted import Changes
from skd.code.stale import Finished


@dataclass
class ChangedRuns:
    """Runs whose code has changed in the same way, each by those of the files that are its own."""

    changes: Changes = field(default_factory=dict)
    runs: list[Finished] = field(default_factory=list)

    def fits(self, run: Finished) -> bool:
        """Return whether a run's changes are not at odds with those of the others."""
        return all(
            self.changes.get(path, digests) == digests for path, digests in run.changed.items()
        )

    def add(self, run: Finished) -> None:
        """Add a run that fits."""
        self.changes |= run.changed
        self.runs.append(run)


def grouped(runs: Sequence[Finished]) -> list[ChangedRuns]:
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


def sample_of(runs: Sequence[Finished], count: int) -> list[Finished]:
    """Return runs that depend on all changed files together: so many, or as many as that takes.

    Of runs that show as many files, the one with the shortest epoch comes first.
    """
    left = sorted(runs, key=lambda run: run.entry.record().cost.seconds_per_epoch)
    unseen = {path for run in left for path in run.changed}
    chosen: list[Finished] = []
    while left and (unseen or len(chosen) < count):
        best = max(left, key=lambda run: len(unseen & run.changed.keys()))  # the first of equals
        chosen.append(best)
        left.remove(best)
        unseen -= best.changed.keys()
    return chosen
