"""`skd accept`: a change of the code that leaves the numbers as they were. No torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from skd.code.accepted import Acceptance, add_accepted
from skd.code.accepting import ChangedRuns, grouped, sample_of
from skd.code.stale import Finished, files_text, finished_runs
from skd.errors import FAILED, SkdError
from skd.looking import look_up
from skd.store import Store
from skd.training.options import RESULTS, Results, Study


class NotShownError(SkdError):
    """Whether a change of the code leaves the numbers as they were cannot be shown here."""


def accept(
    study: Study,
    reason: Annotated[
        str | None,
        typer.Option(help="why the numbers stay as they were; then nothing is trained again"),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="train at least so many runs again")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="of each, so many of its first epochs")] = 1,
    results: Results = RESULTS,
) -> None:
    """Accept that a change of the code leaves the numbers of finished runs as they were.

    As after a renaming or another refactoring. A sample of the study's runs, which together depend
    on all changed files, is trained again for their first epochs. If every metric has the same
    bits, the change is added to skd/code/accepted.json: commit that file with the change. From then
    on no run of any study counts as trained by other code for this change.

    The bits are the same only on the same kind of machine, with the same version of torch. On
    another one, and where the teachers are not at hand, give a reason.

    Exit status: 0 accepted, or nothing to accept; 1 the numbers differ; 2 it cannot be shown here.
    """
    expansion, store = look_up(study, results), Store(results)
    groups = grouped(finished_runs(expansion, store))
    if not groups:
        print(f"no finished run of {expansion.study} is known to be trained by other code")
        return
    for group in groups:
        print(f"{len(group.runs)} finished runs, changed since: {', '.join(group.changes)}")
    shown = [[] if reason else _trained_again(group, store, runs, epochs) for group in groups]
    which = "epoch" if epochs == 1 else f"{epochs} epochs"
    for group, again in zip(groups, shown, strict=True):
        path = add_accepted(
            Acceptance(
                changes=group.changes,
                why=reason or f"the first {which}, trained again: the same bits",
                trained_again=tuple(run.entry.id for run in again),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    print(f"accepted; commit {path.name} with the change: {path}")


def _trained_again(group: ChangedRuns, store: Store, runs: int, epochs: int) -> Sequence[Finished]:
    """Return the runs that were trained again to the same bits.

    Raises:
        NotShownError: no runs that depend on all changed files can be trained again here.
        Exit: the numbers are other ones.
    """
    from skd.code.again import differing_epoch, why_not_again
    from skd.training.materials import Materials

    reasons = {run.label: why_not_again(run, store) for run in group.runs}
    sample = sample_of([run for run in group.runs if reasons[run.label] is None], runs)
    unseen = group.changes.keys() - {path for run in sample for path in run.changed}
    if unseen:
        label, why = next((label, why) for label, why in reasons.items() if why is not None)
        raise NotShownError(
            f"no run that depends on {files_text(unseen)} can be trained again here ({label}: "
            f"{why}); make that possible, or give a --reason"
        )
    materials, differing = Materials(), 0
    for run in sample:
        epoch = differing_epoch(run, store, materials, epochs)
        said = "the same bits" if epoch is None else f"OTHER NUMBERS in epoch {epoch}"
        print(f"{run.label}: {said}; trained on {_machine(run)}", flush=True)
        differing += epoch is not None
    if differing:
        print(
            f"{differing} of {len(sample)} runs have other numbers: nothing is accepted. Where "
            "this is another kind of machine than theirs, that says nothing: give a --reason",
            file=sys.stderr,
        )
        raise typer.Exit(FAILED)
    return sample


def _machine(run: Finished) -> str:
    record = run.entry.record()
    kind = "gpu" if record.execution.get("device") == "cuda" else "cpu"
    where = record.environment
    return f"{where.get(kind)} with torch {where.get('torch')}"
