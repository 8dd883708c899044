"""Everything that a report says of a study, as data: read once, then written in all its forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from report.frames.analysis import (
    StudyAnalysis,
    contradicted_lines,
    read_study_analysis,
    skipped_text,
    unchecked_text,
)
from report.frames.cells import PairFinding, find_pairs
from report.frames.study_frames import Frames, build_frames
from report.headline import headline
from report.statistics.ranks import Ranking, rank_methods
from report.statistics.variance import VarianceSplit, split_variance
from report.statistics.verdicts import DEFAULT_MARGIN
from report.tables.calibration import calibration_table
from report.tables.cost import cost_table
from report.tables.imagenet import imagenet_table, published_imagenet_table
from report.tables.method_comparisons import (
    combinations_table,
    comparisons_table,
    ranks_table,
    variance_table,
)
from report.tables.plan import plan_table, read_plan_comparison
from report.tables.results import cells_table, paper_tables, teachers_table
from report.tables.sensitivity import ablation_table, temperature_table
from report.tables.simplifier import simplifier_table
from report.tables.speed import read_benchmarks, speed_table
from report.tables.table import ReportTable
from skd.analyses.consistency import check_records
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_path
from skd.study.published import PublishedKey, PublishedValue, published_values
from skd.study.spec import DatasetSpec

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Findings:
    """A study's results, judged.

    Attributes:
        results: the folder that all was read from.
        margin: of the verdicts, in points.
        problems: what lies in the study's folder and cannot be used, and why.
        tables: by key, in the order of the report; only those that have rows.
    """

    expansion: Expansion
    results: Path
    margin: float
    frames: Frames
    published: Mapping[PublishedKey, PublishedValue]
    pairs: tuple[PairFinding, ...]
    ranking: Ranking | None
    variances: Mapping[str, VarianceSplit]
    analyses: StudyAnalysis | None
    problems: tuple[str, ...]
    headline: tuple[str, ...]
    tables: Mapping[str, ReportTable]


def read_findings(expansion: Expansion, results: Path, margin: float = DEFAULT_MARGIN) -> Findings:
    """Read what the store holds of a study now, and judge it.

    Raises:
        PublishedError: a file of published values cannot be read.
    """
    frames = build_frames(expansion, Store(results))
    published = published_values(expansion.dataset)
    analyses, analysis_problem = read_study_analysis(results, expansion.study)
    checks = check_records(analyses.found if analyses else None, frames.records, frames.cards)
    pairs = tuple(find_pairs(expansion, frames, published, margin, checks.runs))
    ranked = _ranking(expansion, pairs)
    variances = {
        pair.pair: split for pair in pairs if (split := split_variance(_at_most_seeds(pair)))
    }
    plan, plan_problem = read_plan_comparison(expansion, frames, results)
    comparisons, bench_problems = read_benchmarks(results, expansion)
    methods = expansion.methods
    tables = (
        teachers_table(frames, pairs, checks.teachers),
        *paper_tables(pairs, methods, margin),
        cells_table(pairs, margin),
        combinations_table(pairs, methods),
        simplifier_table(frames, pairs),
        ablation_table(expansion, pairs),
        temperature_table(expansion, pairs),
        ranks_table(ranked),
        comparisons_table(pairs),
        variance_table(variances),
        calibration_table(analyses, frames) if analyses else None,
        cost_table(expansion, frames),
        speed_table(comparisons, expansion),
        plan_table(plan) if plan else None,
        _imagenet(expansion, results, pairs, published),
    )
    return Findings(
        expansion=expansion,
        results=results,
        margin=margin,
        frames=frames,
        published=published,
        pairs=pairs,
        ranking=ranked,
        variances=variances,
        analyses=analyses,
        problems=tuple(
            problem
            for problem in (
                analysis_problem,
                plan_problem,
                skipped_text(analyses),
                *contradicted_lines(checks, expansion),
                unchecked_text(checks, expansion.study),
                *bench_problems,
            )
            if problem
        ),
        headline=tuple(headline(pairs, methods, frames, margin)),
        tables={table.key: table for table in tables if table is not None},
    )


def _at_most_seeds(pair: PairFinding) -> dict[str, Mapping[int, float]]:
    """Return the accuracies of the methods that are furthest: one just begun must not hide them."""
    most = max((cell.done for cell in pair.cells), default=0)
    return {cell.method: cell.last_by_seed for cell in pair.cells if cell.done == most > 1}


def _ranking(expansion: Expansion, pairs: tuple[PairFinding, ...]) -> Ranking | None:
    """Rank the methods that every pair with results has finished runs of."""
    begun = [pair for pair in pairs if any(cell.done for cell in pair.cells)]
    means = {
        method: {
            pair.pair: cell.last.mean
            for pair in begun
            if (cell := pair.cell(method)) is not None and cell.last.mean is not None
        }
        for method in expansion.methods
    }
    return rank_methods(
        {method: found for method, found in means.items() if len(found) == len(begun)}
    )


def _imagenet(
    expansion: Expansion,
    results: Path,
    pairs: tuple[PairFinding, ...],
    published: Mapping[PublishedKey, PublishedValue],
) -> ReportTable | None:
    """Return ImageNet's results where they are the study's, or what is published beside others."""
    if expansion.dataset.name == IMAGENET:
        return imagenet_table(pairs)
    if not published:
        return None
    here = IMAGENET if expansion_path(results, IMAGENET).is_file() else None
    return published_imagenet_table(published_values(DatasetSpec(name=IMAGENET)), here)
