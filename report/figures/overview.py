"""Figures over all pairs: verdicts, ranks, what the choice of the epoch does, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from report.figures.plotting import plot_dots
from report.figures.style import (
    GRID,
    INK,
    VERDICT_COLOURS,
    MethodStyle,
    RenderedFigure,
    render_figure,
)
from report.formats import join_names, number, plural
from report.frames.cells import PairFinding
from report.statistics.intervals import EQUIVALENCE_CONFIDENCE
from report.statistics.ranks import Ranking
from report.statistics.verdicts import VERDICT_KINDS


def forest(pairs: Sequence[PairFinding], margin: float) -> RenderedFigure | None:
    """Return every verdict: ours minus published with its 90 and 95 % intervals, or none."""
    rows = [
        (f"{cell.pair}, {cell.method}", comparison, cell.verdict.kind)
        for pair in pairs
        for cell in pair.cells
        if cell.verdict is not None
        for comparison in cell.verdict.comparisons
        if comparison.difference is not None
    ]
    if not rows:
        return None
    two = {name for name, _, _ in rows if sum(name == other for other, _, _ in rows) > 1}
    names = [f"{name} ({row.epoch})" if name in two else name for name, row, _ in rows]

    def plot(axes: Axes) -> None:
        axes.axvspan(-margin, margin, color=GRID, alpha=0.5, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, (_, comparison, kind) in enumerate(rows):
            found, colour = comparison.difference, VERDICT_COLOURS[kind]
            for confidence, width in ((0.95, 1.0), (EQUIVALENCE_CONFIDENCE, 3.0)):
                if bounds := found.interval(confidence):
                    axes.plot(bounds, (place, place), color=colour, linewidth=width)
            hollow = "none" if found.se is None else colour
            axes.plot(found.mean, place, "o", color=colour, markerfacecolor=hollow, markersize=5)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("ours minus published (points of top-1)")
        axes.grid(axis="y", visible=False)
        kinds = [kind for kind in VERDICT_KINDS if any(kind == found for _, _, found in rows)]
        handles = [
            Line2D([], [], color=VERDICT_COLOURS[kind], marker="o", label=kind) for kind in kinds
        ]
        axes.figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8)

    counted = [f"{sum(k == kind for _, _, k in rows)} {kind}" for kind in VERDICT_KINDS]
    description = (
        "A row a comparison (two where the published epoch is unstated): ours minus published; "
        "the thick line is the 90 % interval, the thin one the 95 % interval, the grey band the "
        f"margin of {margin:g} points; hollow: one seed. Of {plural(len(rows), 'comparison')}: "
        f"{join_names(counted)}."
    )
    size = (7.2, 1.3 + 0.21 * len(rows))
    return render_figure("forest", "Every published value", description, plot, size)


def critical_differences(ranking: Ranking | None) -> RenderedFigure | None:
    """Return the mean ranks on a line, groups that are not told apart joined (Demšar 2006)."""
    if ranking is None:
        return None
    groups = ranking.cliques()
    k = len(ranking.ranks)
    half = (k + 1) // 2

    def plot(axes: Axes) -> None:
        axes.set_xlim(0.5, k + 0.5)
        axes.set_ylim(-(len(groups) * 0.35 + half + 1.2), 2.2)
        axes.plot((1, k), (0, 0), color=INK, linewidth=1)
        for tick in range(1, k + 1):
            axes.plot((tick, tick), (0, 0.18), color=INK, linewidth=1)
            axes.annotate(str(tick), (tick, 0.3), ha="center", fontsize=8)
        width = min(ranking.critical_difference, k - 1)
        axes.plot((1, 1 + width), (1.4, 1.4), color=INK, linewidth=1.5)
        axes.annotate(
            f"critical difference {number(ranking.critical_difference)}", (1, 1.6), fontsize=8
        )
        bottom = -(len(groups) * 0.35)
        for place, (method, rank) in enumerate(ranking.ranks.items()):
            left = place < half
            level = bottom - 0.7 - (place if left else k - 1 - place)
            edge = 0.7 if left else k + 0.3
            axes.plot((rank, rank, edge), (0, level, level), color=INK, linewidth=0.7)
            axes.annotate(
                f"{method} ({number(rank)})", (edge, level + 0.1),
                ha="left" if left else "right", fontsize=8,
            )  # fmt: skip
        for place, group in enumerate(groups, start=1):
            ends = [ranking.ranks[group[0]] - 0.05, ranking.ranks[group[-1]] + 0.05]
            axes.plot(ends, (-0.35 * place, -0.35 * place), color=INK, linewidth=3)
        axes.axis("off")

    ranks = [f"{method} {number(rank)}" for method, rank in ranking.ranks.items()]
    description = (
        f"Mean ranks over {plural(ranking.pairs, 'pair')}, 1 is best: {join_names(ranks)}. Methods "
        f"joined by a bar differ by less than {number(ranking.critical_difference)} and are not "
        "told apart."
    )
    size = (7.2, 1.4 + 0.28 * half)
    return render_figure("ranks", "Mean ranks over pairs", description, plot, size)


def best_minus_last(runs: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return how much the best epoch flatters, a dot a run, by method."""
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    if done.empty:
        return None
    done = done.assign(gap=done["best_top1"] - done["last_top1"])
    means = done.groupby("method", sort=False)["gap"].mean()
    said = [f"{method} {number(value)}" for method, value in means.items()]
    return _strip(
        done, "gap", styles, "best-minus-last", "What choosing the best epoch adds",
        "best minus last epoch (points of top-1)",
        f"Top-1 at the best epoch minus the last, a dot a run, a bar the mean. {join_names(said)}.",
    )  # fmt: skip


def agreement(measured: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return how often students predict what their teacher predicts, a dot a run, by method."""
    known = measured.dropna(subset=["agreement"])
    if known.empty:
        return None
    means = known.groupby("method", sort=False)["agreement"].mean()
    said = [f"{method} {number(value)} %" for method, value in means.items()]
    return _strip(
        known, "agreement", styles, "agreement", "Agreement with the teacher",
        "same prediction as the teacher (%)",
        "Share of evaluated images on which student and teacher predict the same class, a dot a "
        f"run, a bar the mean. {join_names(said)}.",
    )  # fmt: skip


def _strip(
    data: pd.DataFrame, column: str, looks: Mapping[str, MethodStyle], name: str, title: str, label: str,
    description: str,
) -> RenderedFigure:  # fmt: skip
    def plot(axes: Axes) -> None:
        plot_dots(axes, data, column, looks, size=5)
        axes.set(xlabel=label, ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))

    return render_figure(
        name, title, description, plot, (4.6, 1.0 + 0.3 * data["method"].nunique())
    )
