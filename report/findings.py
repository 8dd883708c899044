"""The content of a study's report as data. The output formats are written from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from report.frames.analysis import (
    StudyAnalysis,
    read_study_analysis,
    skipped_text,
    unchecked_text,
)
from report.frames.cells import PairFinding, find_pairs
from report.frames.outcomes import outcome_counts
from report.frames.plan_comparison import read_plan_comparison
from report.frames.study_frames import Frames, build_frames
from report.frames.without_simplifier import remainders
from report.headline import Headline, make_headline
from report.names import Names, ordered_for_display
from report.sanity.checks import SEVERITIES, check_study
from report.sanity.doubts import Doubt
from report.sanity.simplifiers import unmoved_methods
from report.statistics.ranks import Ranking, rank_methods
from report.statistics.variance import VarianceSplit, split_variance
from report.statistics.verdicts import DEFAULT_MARGIN
from report.tables.calibration import calibration_table
from report.tables.cost import cost_table
from report.tables.displayed import displayed
from report.tables.imagenet import imagenet_table, published_imagenet_table
from report.tables.main import main_table
from report.tables.method_comparisons import (
    combinations_table,
    comparisons_table,
    ranks_table,
    variance_table,
)
from report.tables.paper import paper_tables
from report.tables.plan import plan_table
from report.tables.results import cells_table
from report.tables.sensitivity import ablation_table, sensitivity_table, temperature_table
from report.tables.simplifier import simplifier_table
from report.tables.speed import read_benchmarks, speed_table
from report.tables.table import ReportTable
from report.tables.teachers import teachers_table
from skd.analyses.consistency import check_records
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_path
from skd.study.published import PublishedKey, PublishedValue, published_values
from skd.study.spec import DatasetSpec

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Findings:
    """A study's results with their statistics.

    Attributes:
        expansion: the study, with its methods in the order in which they are shown.
        names: the names that people read for its methods and networks.
        results: the results folder that they were read from.
        margin: margin of equivalence of the verdicts, in points.
        frames: the study's tidy frames.
        published: the published values.
        pairs: the findings of each pair.
        ranking: the methods' mean ranks, or ``None``.
        variances: variance components, by pair.
        analyses: the output of `skd analyse`, or ``None``.
        problems: files of the study that cannot be used, and why.
        answer: the sentences that the report starts with.
        doubts: what makes the results useless or doubtful, the most serious first.
        tables: by key, in the order of the report; only those that have rows.
    """

    expansion: Expansion
    names: Names
    results: Path
    margin: float
    frames: Frames
    published: Mapping[PublishedKey, PublishedValue]
    pairs: tuple[PairFinding, ...]
    ranking: Ranking | None
    variances: Mapping[str, VarianceSplit]
    analyses: StudyAnalysis | None
    problems: tuple[str, ...]
    answer: Headline
    doubts: tuple[Doubt, ...]
    tables: Mapping[str, ReportTable]

    @property
    def headline(self) -> tuple[str, ...]:
        """The answer and the doubts as paragraphs, for formats without a first screen."""
        of = {severity: [] for severity in SEVERITIES}
        for doubt in self.doubts:
            of[doubt.severity].append(doubt.paragraph)
        answer = self.answer
        sentences = (answer.lead, *answer.points)
        return (*of["fatal"], *sentences, *of["caution"], *answer.fine_print, *of["note"])


def read_findings(expansion: Expansion, results: Path, margin: float = DEFAULT_MARGIN) -> Findings:
    """Read a study's current results and compute the report's content.

    Raises:
        PublishedError: a file of published values cannot be read.
    """
    expansion = ordered_for_display(expansion)
    names = Names.of(expansion)
    frames = build_frames(expansion, Store(results))
    published = published_values(expansion.dataset)
    analyses, analysis_problem = read_study_analysis(results, expansion.study)
    checks = check_records(analyses.analysis if analyses else None, frames.records, frames.cards)
    pairs = tuple(find_pairs(expansion, frames, published, margin, checks.runs))
    plan, plan_problem = read_plan_comparison(expansion, frames, results)
    benchmarks, benchmark_problems = read_benchmarks(results, expansion)
    problems = (
        analysis_problem,
        plan_problem,
        skipped_text(analyses),
        unchecked_text(checks, expansion.study),
        *benchmark_problems,
    )
    findings = Findings(
        expansion=expansion,
        names=names,
        results=results,
        margin=margin,
        frames=frames,
        published=published,
        pairs=pairs,
        ranking=_ranking(expansion, pairs),
        variances=_variances(pairs),
        analyses=analyses,
        problems=tuple(problem for problem in problems if problem),
        answer=make_headline(
            pairs,
            expansion.methods,
            outcome_counts(frames),
            margin,
            names,
            remainders(expansion, unmoved_methods(frames, expansion)),
        ),
        doubts=check_study(expansion, frames, pairs, checks, names),
        tables={},
    )
    speed = speed_table(benchmarks, expansion)
    plan_or_none = plan_table(plan) if plan else None
    tables = _tables(findings, checks.teachers, speed, plan_or_none)
    shown = (displayed(table, findings.names, len(pairs)) for table in tables if table is not None)
    return replace(findings, tables={table.key: table for table in shown})


def _tables(
    findings: Findings,
    contradicted_teachers: Collection[str],
    speed: ReportTable | None,
    plan: ReportTable | None,
) -> tuple[ReportTable | None, ...]:
    """Return the tables in the order of the report; ``None`` for a table without rows."""
    expansion, frames, pairs = findings.expansion, findings.frames, findings.pairs
    analyses, methods, names = findings.analyses, expansion.methods, findings.names
    return (
        main_table(pairs, methods, names, expansion.tables),
        teachers_table(frames, pairs, names, contradicted_teachers),
        *paper_tables(pairs, methods, names, findings.margin, expansion.tables),
        cells_table(pairs, names, findings.margin),
        calibration_table(analyses, frames) if analyses else None,
        combinations_table(pairs, expansion, names),
        simplifier_table(frames, pairs),
        ablation_table(expansion, pairs),
        temperature_table(expansion, pairs),
        sensitivity_table(expansion, pairs),
        ranks_table(findings.ranking),
        comparisons_table(pairs),
        variance_table(findings.variances),
        cost_table(expansion, frames, names),
        speed,
        plan,
        _imagenet_table(expansion, findings.results, pairs, findings.published),
    )


def _variances(pairs: Sequence[PairFinding]) -> dict[str, VarianceSplit]:
    splits = {pair.pair: split_variance(_complete_methods(pair)) for pair in pairs}
    return {pair: split for pair, split in splits.items() if split is not None}


def _complete_methods(pair: PairFinding) -> dict[str, Mapping[int, float]]:
    """Return the accuracies of the methods with the most finished runs.

    A method that has just started would otherwise reduce the number of common seeds.
    """
    most = max((cell.done for cell in pair.cells), default=0)
    return {cell.method: cell.last_by_seed for cell in pair.cells if cell.done == most > 1}


def _ranking(expansion: Expansion, pairs: tuple[PairFinding, ...]) -> Ranking | None:
    """Rank the methods that have finished runs in every pair with results."""
    started = [pair for pair in pairs if any(cell.done for cell in pair.cells)]
    means = {
        method: {
            pair.pair: cell.last.mean
            for pair in started
            if (cell := pair.cell(method)) is not None and cell.last.mean is not None
        }
        for method in expansion.methods
    }
    return rank_methods(
        {method: by_pair for method, by_pair in means.items() if len(by_pair) == len(started)}
    )


def _imagenet_table(
    expansion: Expansion,
    results: Path,
    pairs: tuple[PairFinding, ...],
    published: Mapping[PublishedKey, PublishedValue],
) -> ReportTable | None:
    """Return the results on ImageNet; for another data set, the published values on ImageNet."""
    if expansion.dataset.name == IMAGENET:
        return imagenet_table(pairs)
    if not published:
        return None
    study = IMAGENET if expansion_path(results, IMAGENET).is_file() else None
    return published_imagenet_table(published_values(DatasetSpec(name=IMAGENET)), study)
