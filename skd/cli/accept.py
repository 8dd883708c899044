"""`skd accept`: a change of the code that leaves the numbers as they were. No torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import open_study
from skd.code.accepted import Acceptance, accepted_path, add_acceptance
from skd.common.errors import FAILED, SkdError
from skd.common.files import check_writable
from skd.provenance.change_groups import ChangedRuns, group_by_changes, group_by_kind
from skd.store.stale import FinishedRun, finished_runs
from skd.store.store import Store


class NotShownError(SkdError):
    """Whether a change of the code leaves the numbers as they were cannot be shown here."""


def accept(
    study: StudyArgument,
    reason: Annotated[
        str | None,
        typer.Option(help="why the numbers stay as they were; then nothing is trained again"),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, help="train so many runs of each kind again; see above")
    ] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="of each, so many of its first epochs")] = 1,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Accept that a change of the code leaves the numbers of finished runs as they were.

    As after a renaming or another refactoring. Of each kind of runs whose code has changed, one is
    trained again for its first epoch; runs of one kind differ in their seed alone. If every metric
    has the same bits, the change is added to skd/code/accepted.json: commit that file with the
    change. From then on no run of any study counts as trained by other code for this change.

    The bits are the same only on the same kind of machine, with the same version of torch. On
    another one, and where the teachers are not at hand, give a reason.

    Exit status: 0 accepted, or nothing to accept; 1 the numbers differ; 2 it cannot be shown here.
    """
    expansion, store = open_study(study, results), Store(results)
    groups = group_by_changes(finished_runs(expansion, store))
    if not groups:
        print(f"no finished run of {expansion.study} is known to be trained by other code")
        return
    check_writable(accepted_path())
    for group in groups:
        print(f"{len(group.runs)} finished runs, changed since: {', '.join(group.changes)}")
    shown = [[] if reason else _trained_again(group, store, runs, epochs) for group in groups]
    which = "epoch" if epochs == 1 else f"{epochs} epochs"
    for group, again in zip(groups, shown, strict=True):
        path = add_acceptance(
            Acceptance(
                changes=group.changes,
                why=reason or f"the first {which}, trained again: the same bits",
                trained_again=tuple(run.entry.id for run in again),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    print(f"accepted; commit {path.name} with the change: {path}")


def _trained_again(
    group: ChangedRuns, store: Store, runs: int, epochs: int
) -> Sequence[FinishedRun]:
    """Return the runs that were trained again to the same bits.

    Raises:
        NotShownError: no run of some kind can be trained again here.
        Exit: the numbers are other ones.
    """
    from skd.training.resources import Resources
    from skd.training.retraining import first_differing_epoch, retraining_problem

    sample: list[FinishedRun] = []
    for kind in group_by_kind(group.runs):
        reasons = [retraining_problem(run, store) for run in kind]
        able = [run for run, why in zip(kind, reasons, strict=True) if why is None]
        if not able:
            raise NotShownError(_not_shown(kind[0], reasons[0]))
        sample += able[:runs]
    materials, differing = Resources(), 0
    for run in sample:
        try:
            epoch = first_differing_epoch(run, store, materials, epochs)
        except SkdError as error:
            raise NotShownError(_not_shown(run, error)) from error
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


def _not_shown(run: FinishedRun, why: object) -> str:
    return (
        f"{run.label} cannot be trained again here ({why}): make that possible, or give a --reason"
    )


def _machine(run: FinishedRun) -> str:
    record = run.entry.record()
    kind = "gpu" if record.execution.get("device") == "cuda" else "cpu"
    where = record.environment
    return f"{where.get(kind)} with torch {where.get('torch')}"
