"""The commands `skd show` and `skd merge`. Imports no torch."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from skd.cli.options import DEFAULT_RESULTS, ResultsOption
from skd.cli.results_folder import require_results
from skd.common.errors import FAILED
from skd.common.files import check_writable_folder
from skd.common.terminal import PlainConsole, description_column, printable
from skd.provenance.details import collect_details, entries_of
from skd.provenance.lookup import ExpandedStudies, find_identity
from skd.provenance.merge_execution import execute_merge
from skd.provenance.merge_plan import MergeError, list_entries, plan_merge
from skd.provenance.merge_text import conflict_advice, merge_summary, render_conflicts
from skd.provenance.show_json import details_json
from skd.provenance.show_text import render_details
from skd.store.store import Store


def show(
    run: Annotated[
        str,
        typer.Argument(
            help="an identity or its first characters, STUDY/PAIR/METHOD/SEED, or STUDY/TEACHER"
        ),
    ],
    results: ResultsOption = DEFAULT_RESULTS,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="hash the files and report whether they are unchanged"),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="print one JSON document instead of tables")
    ] = False,
) -> None:
    """Show one run or teacher: settings, execution, result, cost, environment and files."""
    require_results(results)
    store, studies = Store(results), ExpandedStudies.read(results)
    identity = find_identity(run, store, studies)
    details = [
        collect_details(kind, entry, store, studies, results, verify)
        for kind, entry in entries_of(identity, store, studies)
    ]
    if json:
        data = {"id": identity, "entries": [details_json(item) for item in details]}
        print(json_.dumps(data, indent=1, ensure_ascii=False))
        return
    console = PlainConsole()
    for number, item in enumerate(details):
        console.print(*["\n"] * bool(number), render_details(item), sep="")


def merge(
    source: Annotated[
        Path, typer.Argument(help="another results folder, with runs/ and teachers/")
    ],
    results: ResultsOption = DEFAULT_RESULTS,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="check everything and report the changes, but make none"),
    ] = False,
) -> None:
    """Copy the finished runs and teachers of another results folder into this one.

    Everything is checked first. If a run or teacher has other numbers in this folder under the
    same identity, nothing is copied. The source folder does not change.
    """
    if os.path.realpath(source) == os.path.realpath(results):
        raise MergeError(f"{source} is the results folder itself: name another folder")
    store, entries = Store(results), list_entries(source)
    check_writable_folder(results)
    with _progress_bar("checking", len(entries)) as bar:
        plan = plan_merge(entries, store, lambda: bar.advance(bar.task_ids[0]))
    for kind, identity, reason in plan.refused:
        print(printable(f"refused: {kind} {identity}: {reason}"), file=sys.stderr)
    if plan.conflicts:
        studies = (ExpandedStudies.read(results), ExpandedStudies.read(source))
        PlainConsole().print(render_conflicts(plan.conflicts, studies))
        raise MergeError(conflict_advice(plan.conflicts, source))
    if not dry_run:
        with _progress_bar("merging", len(plan.steps)) as bar:
            execute_merge(plan, store, lambda: bar.advance(bar.task_ids[0]))
    for line in merge_summary(plan, dry_run):
        print(line)
    if plan.refused:
        raise typer.Exit(FAILED)


@contextmanager
def _progress_bar(description: str, total: int) -> Iterator[Progress]:
    """Yield a progress bar with one task; it is shown only on a terminal."""
    columns = description_column(), BarColumn(), MofNCompleteColumn()
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=PlainConsole(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    bar.add_task(description, total=total)
    with bar:
        yield bar
