"""Draws all figures of a report, in parallel if they are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from joblib import Parallel, cpu_count, delayed
from rich.progress import track

from report.figures.rendered import RenderedFigure
from skd.common.terminal import PlainConsole

FigureJob = partial
FigureOrProblem = RenderedFigure | str | None  # a text is the reason why drawing failed
MAX_PROCESSES = 8  # each needs a quarter of a GB
PARALLEL_FROM = 40  # number of figures from which parallel drawing is faster


def draw_all(
    jobs: Mapping[str, Sequence[FigureJob]], workers: int | None
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
