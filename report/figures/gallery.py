"""All figures of a report: those over all pairs, and those of each pair."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from joblib import Parallel, cpu_count, delayed
from rich.progress import track

from report.figures import curves, diagnostics, gains, overview, predictions, tradeoffs
from report.figures.style import MethodStyle, RenderedFigure, method_styles
from report.frames.analysis import StudyAnalysis, measures_frame
from report.frames.cells import CONTROL, PairFinding, anchor
from report.frames.method_variants import SettingCurve
from report.frames.study_frames import Frames
from report.statistics.ranks import Ranking
from report.tables.sensitivity import pair_setting_curves, pair_temperature_groups
from skd.analyses.records import FEATURE_METHODS
from skd.common.terminal import PlainConsole
from skd.study.expansion import Expansion

FigureOrProblem = RenderedFigure | str | None  # a text is the reason why drawing failed
FigureJob = partial
MAX_PROCESSES = 8  # each needs a quarter of a GB
PARALLEL_FROM = 40  # number of figures from which parallel drawing is faster


@dataclass(frozen=True)
class PairGallery:
    """The figures of one pair.

    Attributes:
        anchor: its id in the page.
        collapsed: whether the pair has collapsed runs.
    """

    pair: str
    anchor: str
    collapsed: bool
    drawings: tuple[RenderedFigure, ...]


@dataclass(frozen=True)
class Gallery:
    """All figures by section of the page, and the reasons why some could not be drawn.

    Attributes:
        gains: every method's gain over the student alone, for the first screen.
    """

    gains: tuple[RenderedFigure, ...]
    verdicts: tuple[RenderedFigure, ...]
    ranks: tuple[RenderedFigure, ...]
    overview: tuple[RenderedFigure, ...]
    pairs: tuple[PairGallery, ...]
    problems: tuple[str, ...]

    @property
    def drawings(self) -> list[RenderedFigure]:
        """All figures."""
        of_pairs = [drawing for pair in self.pairs for drawing in pair.drawings]
        return [*self.gains, *self.verdicts, *self.ranks, *self.overview, *of_pairs]


def make_gallery(
    expansion: Expansion,
    frames: Frames,
    pairs: Sequence[PairFinding],
    analyses: StudyAnalysis | None,
    ranking: Ranking | None,
    margin: float,
    workers: int | None = None,
) -> Gallery:
    """Draw every figure for which there are data.

    Args:
        expansion: the study.
        frames: its tidy frames.
        pairs: its findings.
        analyses: the output of `skd analyse`, or ``None``.
        ranking: the methods' mean ranks, or ``None``.
        margin: margin of equivalence of the verdicts, in points.
        workers: number of processes. ``None``: one per CPU for many figures, otherwise one.
    """
    styles = method_styles(expansion.methods, CONTROL)
    jobs: dict[str, list[FigureJob]] = {
        "gains": list(gains.gain_figures(pairs, expansion.methods, styles)),
        "verdicts": [partial(overview.forest, pairs, margin)],
        "ranks": [partial(overview.critical_differences, ranking)],
        "overview": [partial(overview.best_minus_last, frames.runs, styles)],
    }
    if analyses:
        measures = measures_frame(analyses, frames)
        jobs["overview"].append(partial(overview.agreement, measures, styles))
    for pair in pairs:
        jobs[pair.pair] = _pair_jobs(expansion, frames, pair, analyses, styles)
    figures, problems = _run_jobs(jobs, workers)
    collapsed = set(frames.runs.loc[frames.runs["collapsed"].eq(True), "pair"])
    galleries = (
        PairGallery(
            pair.pair,
            anchor("figures", pair.teacher.name, pair.student),
            pair.pair in collapsed,
            figures[pair.pair],
        )
        for pair in pairs
    )
    return Gallery(
        figures["gains"],
        figures["verdicts"],
        figures["ranks"],
        figures["overview"],
        tuple(gallery for gallery in galleries if gallery.drawings),
        problems,
    )


def _pair_jobs(
    expansion: Expansion,
    frames: Frames,
    pair: PairFinding,
    analyses: StudyAnalysis | None,
    styles: Mapping[str, MethodStyle],
) -> list[FigureJob]:
    name = f"{pair.teacher.name}--{pair.student}"
    runs = frames.runs[frames.runs["pair"] == pair.pair]
    if not (runs["outcome"] == "done").any():
        return []
    epochs = frames.epochs[frames.epochs["pair"] == pair.pair]
    split = expansion.dataset.split
    jobs: list[FigureJob] = [
        partial(curves.last_epoch_dots, runs, styles, f"{name}-seeds", split),
        partial(curves.learning_curves, epochs, styles, f"{name}-curves", split),
        partial(tradeoffs.accuracy_against_cost, runs, styles, f"{name}-cost"),
        partial(
            tradeoffs.temperature,
            pair,
            pair_temperature_groups(expansion, pair),
            f"{name}-temperature",
        ),
        *_sensitivity_jobs(expansion, pair, styles, name),
        partial(
            diagnostics.simplifier_diagnostics,
            epochs,
            styles,
            f"{name}-watch",
            expansion.images.classes,
        ),
    ]
    if analyses:
        teacher = expansion.teacher(pair.teacher.name)
        analysis = analyses.for_pair(runs, teacher.id)
        featured = [method for method in FEATURE_METHODS if method in analysis.runs]
        featured = featured or list(analysis.runs)
        jobs += [
            partial(predictions.calibration, analysis, styles, f"{name}-calibration"),
            partial(predictions.per_class_gain, analysis, styles, f"{name}-classes", featured),
            partial(predictions.correlations, analysis, f"{name}-correlations", featured),
            partial(predictions.embeddings, analysis, f"{name}-features"),
            partial(predictions.simplifier_examples, analysis, f"{name}-examples"),
        ]
    return jobs


def _sensitivity_jobs(
    expansion: Expansion, pair: PairFinding, styles: Mapping[str, MethodStyle], name: str
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
        )
        for label, curves in by_setting.items()
    ]


def _run_jobs(
    jobs: Mapping[str, list[FigureJob]], workers: int | None
) -> tuple[dict[str, tuple[RenderedFigure, ...]], tuple[str, ...]]:
    """Draw all figures, in parallel if there are many; return them by section, and the problems."""
    flat = [job for section in jobs.values() for job in section]
    processes = workers or (min(MAX_PROCESSES, cpu_count()) if len(flat) > PARALLEL_FROM else 1)
    results = Parallel(processes, return_as="generator")(delayed(_attempt)(job) for job in flat)
    console = PlainConsole(stderr=True)
    options = {"console": console, "disable": not console.is_terminal, "transient": True}
    results = list(track(results, "figures", total=len(flat), **options))
    remaining = iter(results)
    by_section = {name: [next(remaining) for _ in section] for name, section in jobs.items()}
    figures = {
        name: tuple(result for result in section if isinstance(result, RenderedFigure))
        for name, section in by_section.items()
    }
    return figures, tuple(result for result in results if isinstance(result, str))


def _attempt(job: FigureJob) -> FigureOrProblem:
    """Draw a figure, or return the reason why it cannot be drawn.

    A figure that cannot be drawn must not prevent the report.
    """
    try:
        return job()
    except Exception as error:
        return f"The figure {job.func.__name__} cannot be drawn: {type(error).__name__}: {error}"
