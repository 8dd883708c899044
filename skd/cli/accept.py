"""The command `skd accept`. Imports no torch at its start."""

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
    """This machine cannot show whether the numbers stay the same after a change of the code."""


def accept(
    study: StudyArgument,
    reason: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="why the numbers stay as they were; no run is then trained again"
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="number of runs of each kind to train again"),
    ] = 1,
    epochs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="number of epochs for which each of them is trained again"
        ),
    ] = 1,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Accept that the numbers of finished runs stay the same after a change of the code.

    Use it after a renaming or another refactoring. Runs are of the same kind if they differ only in
    their seed. For each kind whose code has changed, the command trains one run again for its first
    epoch. If every metric has the same bits, it adds the change to skd/code/accepted.json: commit
    that file together with the change. From then on, no run of any study counts as trained by other
    code because of this change.

    The bits are the same only on the same kind of machine and with the same version of torch. On
    another machine, or without the teachers, give a --reason.

    Exit status: 0 if the change is accepted or there is nothing to accept, 1 if the numbers differ,
    2 if the runs cannot be trained again on this machine.
    """
    expansion, store = open_study(study, results), Store(results)
    groups = group_by_changes(finished_runs(expansion, store))
    if not groups:
        print(f"no finished run of {expansion.study} is known to be trained by other code")
        return
    check_writable(accepted_path())
    for group in groups:
        print(f"{len(group.runs)} finished runs, changed since: {', '.join(group.changes)}")
    trained_again = [[] if reason else _train_again(group, store, runs, epochs) for group in groups]
    which = "epoch" if epochs == 1 else f"{epochs} epochs"
    for group, sample in zip(groups, trained_again, strict=True):
        path = add_acceptance(
            Acceptance(
                changes=group.changes,
                why=reason or f"the first {which}, trained again: the same bits",
                trained_again=tuple(run.entry.id for run in sample),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    print(f"accepted; commit {path.name} with the change: {path}")


def _train_again(group: ChangedRuns, store: Store, runs: int, epochs: int) -> Sequence[FinishedRun]:
    """Train some runs of each kind again; return them.

    Raises:
        NotShownError: no run of some kind can be trained again on this machine.
        Exit: the numbers differ.
    """
    from skd.training.resources import Resources
    from skd.training.retraining import first_differing_epoch, retraining_problem

    sample: list[FinishedRun] = []
    for kind in group_by_kind(group.runs):
        problems = [retraining_problem(run, store) for run in kind]
        possible = [run for run, problem in zip(kind, problems, strict=True) if problem is None]
        if not possible:
            raise NotShownError(_not_shown(kind[0], problems[0]))
        sample += possible[:runs]
    resources, differing = Resources(), 0
    for run in sample:
        try:
            epoch = first_differing_epoch(run, store, resources, epochs)
        except SkdError as error:
            raise NotShownError(_not_shown(run, error)) from error
        verdict = "the same bits" if epoch is None else f"OTHER NUMBERS in epoch {epoch}"
        print(f"{run.label}: {verdict}; trained on {_machine(run)}", flush=True)
        differing += epoch is not None
    if differing:
        print(
            f"{differing} of {len(sample)} runs have other numbers: nothing is accepted. If this "
            "machine is of another kind than theirs, that proves nothing: give a --reason",
            file=sys.stderr,
        )
        raise typer.Exit(FAILED)
    return sample


def _not_shown(run: FinishedRun, problem: object) -> str:
    return (
        f"{run.label} cannot be trained again here ({problem}): make that possible, or give a "
        "--reason"
    )


def _machine(run: FinishedRun) -> str:
    record = run.entry.record()
    environment = record.environment
    processor = environment.get("gpu" if record.execution.get("device") == "cuda" else "cpu")
    return f"{processor} with torch {environment.get('torch')}"
