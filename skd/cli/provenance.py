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

from skd.cli.lookup import require_results
from skd.cli.options import RESULTS, Results
from skd.common.errors import FAILED
from skd.common.files import check_writable_folder
from skd.common.terminal import PlainConsole, description, printable
from skd.provenance.facts import entries_of, gather
from skd.provenance.lookup import Studies, find
from skd.provenance.merge_plan import MergeError, entries_in, plan_merge
from skd.provenance.merge_text import advice, conflicts_shown, summary
from skd.provenance.merging import merge as carry_out
from skd.provenance.show_json import document
from skd.provenance.show_text import shown
from skd.store.store import Store


def show(
    run: Annotated[
        str,
        typer.Argument(help="an identity or its beginning, STUDY/PAIR/METHOD/SEED, STUDY/TEACHER"),
    ],
    results: Results = RESULTS,
    verify: Annotated[
        bool, typer.Option("--verify", help="hash its files, and say whether they are the same")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document instead")] = False,
) -> None:
    """Show everything about one run or teacher: what, how, outcome, cost, environment, files."""
    require_results(results)
    store, studies = Store(results), Studies.of(results)
    identity = find(run, store, studies)
    found = [
        gather(kind, entry, store, studies, results, verify)
        for kind, entry in entries_of(identity, store, studies)
    ]
    if json:
        data = {"id": identity, "entries": [document(facts) for facts in found]}
        print(json_.dumps(data, indent=1, ensure_ascii=False))
        return
    console = PlainConsole()
    for number, facts in enumerate(found):
        console.print(*["\n"] * bool(number), shown(facts), sep="")


def merge(
    source: Annotated[Path, typer.Argument(help="another results folder, with runs/, teachers/")],
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything and say what would be, only")
    ] = False,
) -> None:
    """Bring the finished runs and teachers of another results folder into this one.

    All is checked first. If anything here has other numbers under the same identity, nothing is
    merged. The source is only read.
    """
    if os.path.realpath(source) == os.path.realpath(results):
        raise MergeError(f"{source} is the results folder that is merged into: give another one")
    store, entries = Store(results), entries_in(source)
    check_writable_folder(results)
    with _bar("checking", len(entries)) as bar:
        plan = plan_merge(entries, store, lambda: bar.advance(bar.task_ids[0]))
    for kind, identity, why in plan.refused:
        print(printable(f"refused: {kind} {identity}: {why}"), file=sys.stderr)
    if plan.conflicts:
        known = (Studies.of(results), Studies.of(source))
        PlainConsole().print(conflicts_shown(plan.conflicts, known))
        raise MergeError(advice(plan.conflicts, source))
    if not dry_run:
        with _bar("merging", len(plan.steps)) as bar:
            carry_out(plan, store, lambda: bar.advance(bar.task_ids[0]))
    for line in summary(plan, dry_run):
        print(line)
    if plan.refused:
        raise typer.Exit(FAILED)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Progress]:
    """Yield a progress bar with one task, which shows where a person watches."""
    columns = description(), BarColumn(), MofNCompleteColumn()
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=PlainConsole(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    bar.add_task(what, total=total)
    with bar:
        yield bar
