"""The command `skd analyse`. Torch is imported if an analysis needs a network."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from skd.analyses.analyse import analyse_study
from skd.analyses.consistency import check_store
from skd.analyses.records import analysis_path
from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import require_results
from skd.common.errors import suggest
from skd.common.files import check_writable
from skd.common.terminal import PlainConsole, description_column, printable
from skd.store.store import Store
from skd.study.expansion_files import load_expansion
from skd.study.sheet_files import StudyError


def analyse(
    study: StudyArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="a method whose features are shown with t-SNE beside the teacher's; may be "
            "repeated (default: the sheet's figures.methods)",
        ),
    ] = None,
) -> None:
    """Analyse a study's finished runs: calibration, agreement, correlations, features, …

    The analyses use stored weights and logits and train nothing. Results of an earlier analysis
    that are still valid are reused.
    """
    require_results(results)
    expansion = load_expansion(study, results)
    for method in features or ():
        if method not in expansion.methods:
            raise StudyError(f"unknown method '{method}'{suggest(method, expansion.methods)}")
    check_writable(analysis_path(results, expansion.study))
    columns = description_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    console = PlainConsole(stderr=True)
    is_terminal = sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=not is_terminal) as progress:
        analysis = analyse_study(
            expansion,
            results,
            features or expansion.figure_methods,
            lambda items, title: progress.track(items, description=title),
        )
    print(f"{len(analysis.runs)} runs analysed: {analysis_path(results, analysis.study)}")
    for identity, reason in analysis.skipped.items():
        print(printable(f"skipped {identity}: {reason}"), file=sys.stderr)
    checks = check_store(analysis, expansion, Store(results))
    for line in checks.lines(expansion):
        print(printable(f"CONTRADICTED {line}"), file=sys.stderr)
    if checks.unchecked:
        print(
            f"accuracies of {checks.unchecked} of {checks.finished} finished runs not checked: "
            "their test logits are not stored here",
            file=sys.stderr,
        )
