"""The command `skd diff`. What it needs is imported when it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skd.cli.diff_output import print_cells, print_runs
from skd.cli.options import DEFAULT_RESULTS
from skd.common import bounds
from skd.common.errors import FAILED, SkdError, suggest
from skd.common.project import ROOT
from skd.common.terminal import PlainConsole

if TYPE_CHECKING:
    from report.findings import Findings
    from skd.provenance.lookup import ExpandedStudies
    from skd.study.expansion import Expansion

REFERENCE = ROOT / "results" / "reference"  # the committed records
FirstArgument = Annotated[
    Path | None,
    typer.Argument(
        help="results folder A, with runs/ and STUDY/specs.json; with --reference: your results "
        "folder, which is shown as B (default: results)"
    ),
]
SecondArgument = Annotated[
    Path | None, typer.Argument(help="results folder B; differences are B minus A")
]
StudyOption = Annotated[
    str | None, typer.Option(help="compare only this study (default: all that both folders have)")
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="STUDY",
        help="compare the records of STUDY that come with the code, shown as A, with yours, "
        "shown as B",
    ),
]
MarginOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="POINTS",
        callback=bounds.check_finite,
        help="margin of the verdicts in percentage points (default: that of B's last report)",
    ),
]
EquivalenceOption = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="also test with pairs of runs whether each cell is equivalent within ± POINTS of "
        "top-1 accuracy, which decides the exit status",
    ),
]
AllOption = Annotated[
    bool,
    typer.Option("--all", help="list every cell whose runs differ, not only those furthest apart"),
]


class DiffError(SkdError):
    """Two result sets cannot be compared. The message says what to do."""


@dataclass(frozen=True)
class _Comparison:
    """What to compare.

    Attributes:
        folders: the results folders A and B.
        studies: the expansions of each study in A and in B.
        complete: whether these are all the studies that were asked for.
    """

    folders: tuple[Path, Path]
    studies: list[tuple[Expansion, Expansion]]
    complete: bool = True


def diff(
    a: FirstArgument = None,
    b: SecondArgument = None,
    study: StudyOption = None,
    reference: ReferenceOption = None,
    margin: MarginOption = None,
    equivalence: EquivalenceOption = None,
    show_all: AllOption = False,
) -> None:
    """Compare two result sets: versions, devices, runs and cells; list the verdicts that flip.

    For runs with the same identity, the output says how far apart their accuracies are. To compare
    your results with the records that come with the code: skd diff --reference STUDY.

    With --equivalence, the exit status is 0 if all cells with finished runs in both folders are
    equivalent. It is 1 if a cell is undecided or not equivalent, if there is no such cell, or if a
    run is finished in one folder and failed or unreadable in the other.
    """
    from report.diff.differences import compare_sets
    from report.diff.equivalence import assess_equivalence
    from report.diff.equivalence_text import render_equivalence
    from report.findings import read_findings
    from report.output.margin import margin_of

    if equivalence is not None and not 0 < equivalence < math.inf:
        raise DiffError(f"--equivalence {equivalence:g}: allowed: a number of points above 0")
    console = PlainConsole()
    compared = (
        _given_folders(a, b, study, console)
        if reference is None
        else _with_reference(reference, a, b, study)
    )
    equivalent = compared.complete
    for expansions in compared.studies:
        findings = [
            read_findings(
                expansion,
                folder,
                margin_of(compared.folders[1], expansion.study) if margin is None else margin,
            )
            for expansion, folder in zip(expansions, compared.folders, strict=True)
        ]
        if reference is not None:
            _require_finished(findings, compared.folders)
            console.print(f"A: {compared.folders[0]}\nB: {compared.folders[1].absolute()}")
        differences = compare_sets(*findings)
        print_runs(differences, *findings, show_all, console)
        print_cells(differences, console)
        if equivalence is not None:
            tested = assess_equivalence(*findings, equivalence)
            console.print(render_equivalence(tested))
            equivalent = equivalent and tested.is_equivalent
    if equivalence is not None and not equivalent:
        raise typer.Exit(FAILED)


def _given_folders(
    a: Path | None, b: Path | None, study: str | None, console: PlainConsole
) -> _Comparison:
    """Return the comparison of two folders' studies as they were expanded.

    Raises:
        DiffError: there are not two folders, or they cannot be compared.
    """
    if a is None or b is None:
        raise DiffError("give two results folders, or one study: skd diff --reference STUDY")
    sides = _read_folders(a, b)
    names, complete = _studies_to_compare(sides, (a, b), study, console)
    studies = [(sides[0].expansions[name], sides[1].expansions[name]) for name in names]
    return _Comparison((a, b), studies, complete)


def _with_reference(
    reference: str, mine: Path | None, other: Path | None, study: str | None
) -> _Comparison:
    """Return the comparison of the committed records of a study with a results folder.

    Raises:
        DiffError: there are no such records, or the arguments contradict ``--reference``.
        ResultsError: the results folder has no results.
    """
    if other is not None or study is not None:
        raise DiffError("--reference STUDY takes one results folder, yours, and no --study")
    mine = mine or DEFAULT_RESULTS
    expansion = _reference_study(reference, mine)
    return _Comparison((REFERENCE, mine), [(expansion, expansion)])


def _reference_study(study: str, results: Path) -> Expansion:
    """Return today's expansion of a study that the committed records have.

    Raises:
        DiffError: there are no such records.
        ResultsError: the other results folder has no results.
    """
    from skd.cli.results_folder import require_results
    from skd.study.expansion_files import load_expansion_readonly

    known = sorted(path.parent.name for path in REFERENCE.glob("*/analysis.json"))
    if not known:
        raise DiffError(
            f"{REFERENCE} has no records; they come with a clone of the repository: give two "
            "results folders instead"
        )
    if study not in known:
        raise DiffError(f"no records of study '{study}' in {REFERENCE}{suggest(study, known)}")
    require_results(results)
    return load_expansion_readonly(study, results)


def _require_finished(findings: Sequence[Findings], folders: tuple[Path, Path]) -> None:
    """Check that both sets have finished runs of the study.

    Raises:
        DiffError: one has none. The sheet may have changed since its runs were trained.
    """
    for side, folder in zip(findings, folders, strict=True):
        if side.frames.records:
            continue
        study = side.expansion.study
        if folder == REFERENCE:
            raise DiffError(
                f"the records of study {study} that come with the code are of another version of "
                "its sheet; compare with the sheet of that version"
            )
        command = "make demo" if study == "demo" else f"skd train {study}"
        raise DiffError(
            f"{folder} has no finished run of study {study} as its sheet is now; first: {command}"
        )


def _read_folders(*folders: Path) -> list[ExpandedStudies]:
    """Return the studies of some results folders.

    Raises:
        DiffError: one of them is not a folder.
    """
    from skd.provenance.lookup import ExpandedStudies

    studies = []
    for folder in folders:
        if not folder.is_dir():
            raise DiffError(f"{folder} is not a folder; give two results folders")
        studies.append(ExpandedStudies.read(folder))
    return studies


def _studies_to_compare(
    sides: Sequence[ExpandedStudies],
    folders: tuple[Path, Path],
    study: str | None,
    console: PlainConsole,
) -> tuple[list[str], bool]:
    """Return the names of the studies to compare, and whether that is all that was asked for.

    Prints which studies are left out.

    Raises:
        DiffError: the folders have no study in common, or not the study that is named.
    """
    from skd.provenance.lookup import UNUSABLE

    common = [name for name in sides[0].expansions if name in sides[1].expansions]
    unreadable = sorted({name for side in sides for name in side.unreadable})
    if not common:
        reason = f" ({', '.join(unreadable)}: {UNUSABLE})" if unreadable else ""
        raise DiffError(
            f"{folders[0]} and {folders[1]} have no study in common{reason}; "
            "skd expand STUDY --results FOLDER writes a study's specs.json again"
        )
    if study is not None:
        if study not in common:
            raise DiffError(f"study '{study}' is not in both folders{suggest(study, common)}")
        return [study], True
    if left_out := sorted({*sides[0].expansions, *sides[1].expansions} - {*common}):
        console.print(f"in one folder only, not compared: {', '.join(left_out)}")
    if unreadable:
        console.print(f"specs.json {UNUSABLE}, not compared: {', '.join(unreadable)}")
    return common, not unreadable
