"""All figures of a report: those over all pairs, and those of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from joblib import Parallel, cpu_count, delayed
from rich.progress import track

from report.figures import curves, diagnostics, overview, predictions, tradeoffs
from report.figures.style import MethodStyle, RenderedFigure, method_styles
from report.frames.analysis import StudyAnalysis, measures_frame
from report.frames.cells import CONTROL, PairFinding, anchor
from report.frames.study_frames import Frames
from report.statistics.ranks import Ranking
from report.tables.sensitivity import pair_temperature_groups
from skd.analyses.records import FEATURE_METHODS
from skd.common.terminal import PlainConsole
from skd.study.expansion import Expansion

FigureOrProblem = RenderedFigure | str | None  # a text says why there is none
FigureJob = partial
MAX_PROCESSES = 8  # processes: each takes a quarter of a GB
PARALLEL_FROM = 40  # figures: for fewer, starting processes takes longer than drawing


@dataclass(frozen=True)
class PairGallery:
    """One pair's figures."""

    pair: str
    anchor: str
    collapsed: bool
    drawings: tuple[RenderedFigure, ...]


@dataclass(frozen=True)
class Gallery:
    """All figures, by place in the page."""

    verdicts: tuple[RenderedFigure, ...]
    ranks: tuple[RenderedFigure, ...]
    overview: tuple[RenderedFigure, ...]
    pairs: tuple[PairGallery, ...]
    problems: tuple[str, ...]

    @property
    def drawings(self) -> list[RenderedFigure]:
        """Every figure."""
        own = [drawing for pair in self.pairs for drawing in pair.drawings]
        return [*self.verdicts, *self.ranks, *self.overview, *own]


def make_gallery(
    expansion: Expansion,
    frames: Frames,
    pairs: Sequence[PairFinding],
    analyses: StudyAnalysis | None,
    ranking: Ranking | None,
    margin: float,
    workers: int | None = None,
) -> Gallery:
    """Return every figure that there are data for.

    Args:
        expansion: the study.
        frames: its tidy frames.
        pairs: its findings.
        analyses: what `skd analyse` left, or none.
        ranking: methods' mean ranks, or none.
        margin: of the verdicts, in points.
        workers: processes; none: one a CPU where there are many figures, else one.
    """
    look = method_styles(expansion.methods, CONTROL)
    plan: dict[str, list[FigureJob]] = {
        "verdicts": [partial(overview.forest, pairs, margin)],
        "ranks": [partial(overview.critical_differences, ranking)],
        "overview": [partial(overview.best_minus_last, frames.runs, look)],
    }
    if analyses:
        measured = measures_frame(analyses, frames)
        plan["overview"].append(partial(overview.agreement, measured, look))
    for pair in pairs:
        plan[pair.pair] = _pair_jobs(expansion, frames, pair, analyses, look)
    made, problems = _make(plan, workers)
    collapsed = set(frames.runs.loc[frames.runs["collapsed"].eq(True), "pair"])
    galleries = (
        PairGallery(
            pair.pair,
            anchor("figures", pair.teacher.name, pair.student),
            pair.pair in collapsed,
            made[pair.pair],
        )
        for pair in pairs
    )
    return Gallery(
        made["verdicts"],
        made["ranks"],
        made["overview"],
        tuple(gallery for gallery in galleries if gallery.drawings),
        problems,
    )


def _pair_jobs(
    expansion: Expansion,
    frames: Frames,
    pair: PairFinding,
    analyses: StudyAnalysis | None,
    look: Mapping[str, MethodStyle],
) -> list[FigureJob]:
    name = f"{pair.teacher.name}--{pair.student}"
    runs = frames.runs[frames.runs["pair"] == pair.pair]
    if not (runs["outcome"] == "done").any():
        return []
    epochs = frames.epochs[frames.epochs["pair"] == pair.pair]
    split = expansion.dataset.split
    jobs: list[FigureJob] = [
        partial(curves.last_epoch_dots, runs, look, f"{name}-seeds", split),
        partial(curves.learning_curves, epochs, look, f"{name}-curves", split),
        partial(tradeoffs.accuracy_against_cost, runs, look, f"{name}-cost"),
        partial(
            tradeoffs.temperature,
            pair,
            pair_temperature_groups(expansion, pair),
            f"{name}-temperature",
        ),
        partial(
            diagnostics.simplifier_diagnostics,
            epochs,
            look,
            f"{name}-watch",
            expansion.images.classes,
        ),
    ]
    if analyses:
        teacher = expansion.teacher(pair.teacher.name)
        found = analyses.for_pair(runs, teacher.id)
        featured = [method for method in FEATURE_METHODS if method in found.runs] or list(
            found.runs
        )
        jobs += [
            partial(predictions.calibration, found, look, f"{name}-calibration"),
            partial(predictions.per_class_gain, found, look, f"{name}-classes", featured),
            partial(predictions.correlations, found, f"{name}-correlations", featured),
            partial(predictions.embeddings, found, f"{name}-features"),
            partial(predictions.simplifier_examples, found, f"{name}-examples"),
        ]
    return jobs


def _make(
    plan: Mapping[str, list[FigureJob]], workers: int | None
) -> tuple[dict[str, tuple[RenderedFigure, ...]], tuple[str, ...]]:
    """Run all jobs, side by side where they are many; return the drawings, and what went wrong."""
    jobs = [job for own in plan.values() for job in own]
    many = workers or (min(MAX_PROCESSES, cpu_count()) if len(jobs) > PARALLEL_FROM else 1)
    drawn = Parallel(many, return_as="generator")(delayed(_attempt)(job) for job in jobs)
    screen = PlainConsole(stderr=True)
    bar = {"console": screen, "disable": not screen.is_terminal, "transient": True}
    results = list(track(drawn, "figures", total=len(jobs), **bar))
    places = iter(results)
    made = {name: [next(places) for _ in own] for name, own in plan.items()}
    return (
        {
            name: tuple(d for d in own if isinstance(d, RenderedFigure))
            for name, own in made.items()
        },
        tuple(found for found in results if isinstance(found, str)),
    )


def _attempt(job: FigureJob) -> FigureOrProblem:
    """Draw a figure, or say why not: one figure that cannot be drawn must not cost the report."""
    try:
        return job()
    except Exception as error:
        return f"The figure {job.func.__name__} cannot be drawn: {type(error).__name__}: {error}"
