"""The command `skd results`. What it needs is imported when it runs; it needs no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from skd.cli.options import DEFAULT_RESULTS, ResultsOption, StudyArgument
from skd.cli.results_folder import open_study
from skd.common.errors import suggest
from skd.common.terminal import PlainConsole
from skd.study.sheet_files import StudyError

if TYPE_CHECKING:
    from report.findings import Findings


def results_(
    study: StudyArgument,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="PAIR",
            help="show only this pair, TEACHER--STUDENT, in full (default: all pairs)",
        ),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Print a study's results: each method's accuracy, its gain and the gain's interval.

    Below, reasons to doubt the results, if there are any.

    `skd-report` writes the whole report, with figures and tests.
    """
    from report.findings import read_findings
    from report.output.margin import margin_of
    from report.output.terminal import results_tables

    expansion = open_study(study, results)
    margin = margin_of(results, expansion.study)
    findings = _only(read_findings(expansion, results, margin), pair)
    console = PlainConsole()
    for part in results_tables(findings, console.width):
        console.print(part)


def _only(findings: Findings, pair: str | None) -> Findings:
    """Return the findings of one pair; of all if ``pair`` is ``None``.

    Raises:
        StudyError: the study has no such pair.
    """
    if pair is None:
        return findings
    known = {f"{item.teacher.name}--{item.student}": item for item in findings.pairs}
    if pair not in known:
        name = findings.expansion.study
        raise StudyError(f"study {name} has no pair '{pair}'{suggest(pair, known)}")
    return replace(findings, pairs=(known[pair],))
