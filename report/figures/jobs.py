"""Which figures a report has, as jobs that draw them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from report.figures import (
    class_gains,
    curves,
    diagnostics,
    gains,
    overview,
    predictions,
    ranks,
    tradeoffs,
)
from report.figures.drawing import FigureJob
from report.figures.method_styles import MethodStyle, method_styles
from report.frames.analysis import StudyAnalysis, measures_frame
from report.frames.cells import PairFinding
from report.frames.method_variants import SettingCurve
from report.frames.study_frames import Frames
from report.names import Names
from report.statistics.ranks import Ranking
from report.tables.sensitivity import pair_setting_curves, pair_temperature_groups
from skd.study.expansion import Expansion


def gallery_jobs(
    expansion: Expansion,
    frames: Frames,
    pairs: Sequence[PairFinding],
    analyses: StudyAnalysis | None,
    ranking: Ranking | None,
    margin: float,
    names: Names,
) -> dict[str, list[FigureJob]]:
    """Return the jobs of each section of the page and of each pair.

    A job returns its figure, or ``None`` if there is nothing to show.
    """
    styles = method_styles(expansion.methods, names)
    jobs: dict[str, list[FigureJob]] = {
        "gains": list(gains.gain_figures(pairs, expansion.methods, styles, names)),
        "verdicts": [partial(overview.forest, pairs, margin, names)],
        "ranks": [partial(ranks.critical_differences, ranking, names)],
        "overview": [partial(overview.best_minus_last, frames.runs, styles)],
    }
    if analyses:
        measures = measures_frame(analyses, frames)
        jobs["overview"].append(partial(overview.agreement, measures, styles))
    for pair in pairs:
        jobs[pair.pair] = _pair_jobs(expansion, frames, pair, analyses, styles, names.pair(pair))
    return jobs


def _pair_jobs(
    expansion: Expansion,
    frames: Frames,
    pair: PairFinding,
    analyses: StudyAnalysis | None,
    styles: Mapping[str, MethodStyle],
    title: str,
) -> list[FigureJob]:
    name = f"{pair.teacher.name}--{pair.student}"
    runs = frames.runs[frames.runs["pair"] == pair.pair]
    if not (runs["outcome"] == "done").any():
        return []
    epochs = frames.epochs[frames.epochs["pair"] == pair.pair]
    split = expansion.dataset.split
    jobs: list[FigureJob] = [
        partial(curves.last_epoch_dots, runs, styles, f"{name}-seeds", title, split),
        partial(curves.learning_curves, epochs, styles, f"{name}-curves", title, split),
        partial(tradeoffs.accuracy_against_cost, runs, styles, f"{name}-cost", title),
        partial(
            tradeoffs.temperature,
            pair,
            pair_temperature_groups(expansion, pair),
            styles,
            f"{name}-temperature",
            title,
        ),
        *_sensitivity_jobs(expansion, pair, styles, name, title),
        partial(
            diagnostics.simplifier_diagnostics,
            epochs,
            styles,
            f"{name}-watch",
            title,
            expansion.images.classes,
        ),
    ]
    if analyses:
        teacher = expansion.teacher(pair.teacher.name)
        analysis = analyses.for_pair(runs, teacher.id)
        chosen = expansion.figure_methods
        jobs += [
            partial(draw, analysis, styles, f"{name}-{suffix}", title, chosen)
            for suffix, draw in (
                ("calibration", predictions.calibration),
                ("classes", class_gains.per_class_gain),
                ("correlations", predictions.correlations),
            )
        ]
        for suffix, draw in (  # `skd analyse` has chosen their methods
            ("features", predictions.embeddings),
            ("examples", predictions.simplifier_examples),
        ):
            jobs.append(partial(draw, analysis, styles, f"{name}-{suffix}", title))
    return jobs


def _sensitivity_jobs(
    expansion: Expansion,
    pair: PairFinding,
    styles: Mapping[str, MethodStyle],
    name: str,
    title: str,
) -> list[FigureJob]:
    """Return a figure for each setting of which the pair has several values."""
    by_setting: dict[str, list[SettingCurve]] = {}
    for curve in pair_setting_curves(expansion, pair):
        by_setting.setdefault(curve.label, []).append(curve)
    return [
        partial(
            tradeoffs.sensitivity,
            pair,
            curves,
            styles,
            f"{name}-{re.sub('[^A-Za-z0-9]+', '-', label)}",
            title,
        )
        for label, curves in by_setting.items()
    ]
