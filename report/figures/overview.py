"""Figures over all pairs: verdicts, ranks, effect of choosing the best epoch, agreement."""

from __future__ import annotations

from collections import Counter
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
from report.statistics.intervals import CONFIDENCE, EQUIVALENCE_CONFIDENCE
from report.statistics.ranks import Ranking
from report.statistics.verdicts import VERDICT_KINDS


def forest(pairs: Sequence[PairFinding], margin: float) -> RenderedFigure | None:
    """Return ours minus published with its 90 and 95 % intervals for every verdict, or ``None``."""
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
    counts = Counter(kind for _, _, kind in rows)
    repeated = {name for name, count in Counter(name for name, _, _ in rows).items() if count > 1}
    names = [f"{name} ({row.epoch})" if name in repeated else name for name, row, _ in rows]

    def plot(axes: Axes) -> None:
        axes.axvspan(-margin, margin, color=GRID, alpha=0.5, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for y, (_, comparison, kind) in enumerate(rows):
            difference, colour = comparison.difference, VERDICT_COLOURS[kind]
            for confidence, width in ((CONFIDENCE, 1.0), (EQUIVALENCE_CONFIDENCE, 3.0)):
                if bounds := difference.interval(confidence):
                    axes.plot(bounds, (y, y), color=colour, linewidth=width)
            face = "none" if difference.se is None else colour
            axes.plot(difference.mean, y, "o", color=colour, markerfacecolor=face, markersize=5)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("ours minus published (points of top-1)")
        axes.grid(axis="y", visible=False)
        kinds = [kind for kind in VERDICT_KINDS if counts[kind]]
        handles = [
            Line2D([], [], color=VERDICT_COLOURS[kind], marker="o", label=kind) for kind in kinds
        ]
        axes.figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8)

    texts = [f"{counts[kind]} {kind}" for kind in VERDICT_KINDS]
    description = (
        "Ours minus published, with a row for each comparison (two rows if the published epoch is "
        "unstated). Thick line: 90 % interval; thin line: 95 % interval; grey band: margin of "
        f"{margin:g} points; hollow dot: one seed. Of {plural(len(rows), 'comparison')}: "
        f"{join_names(texts)}."
    )
    size = (7.2, 1.3 + 0.21 * len(rows))
    return render_figure("forest", "Every published value", description, plot, size)


def critical_differences(ranking: Ranking | None) -> RenderedFigure | None:
    """Return the critical difference diagram of the mean ranks (Demšar 2006), or ``None``.

    A bar joins methods that are not significantly different.
    """
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
        for i, (method, rank) in enumerate(ranking.ranks.items()):
            left = i < half
            level = bottom - 0.7 - (i if left else k - 1 - i)
            edge = 0.7 if left else k + 0.3
            axes.plot((rank, rank, edge), (0, level, level), color=INK, linewidth=0.7)
            axes.annotate(
                f"{method} ({number(rank)})", (edge, level + 0.1),
                ha="left" if left else "right", fontsize=8,
            )  # fmt: skip
        for i, group in enumerate(groups, start=1):
            ends = [ranking.ranks[group[0]] - 0.05, ranking.ranks[group[-1]] + 0.05]
            axes.plot(ends, (-0.35 * i, -0.35 * i), color=INK, linewidth=3)
        axes.axis("off")

    ranks = [f"{method} {number(rank)}" for method, rank in ranking.ranks.items()]
    description = (
        f"Mean ranks over {plural(ranking.pairs, 'pair')}, 1 is best: {join_names(ranks)}. Methods "
        f"joined by a bar differ by less than {number(ranking.critical_difference)}, which is not "
        "significant."
    )
    size = (7.2, 1.4 + 0.28 * half)
    return render_figure("ranks", "Mean ranks over pairs", description, plot, size)


def best_minus_last(runs: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return best minus last epoch by method, with a dot for each run, or ``None``."""
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    if done.empty:
        return None
    done = done.assign(gap=done["best_top1"] - done["last_top1"])
    means = done.groupby("method", sort=False)["gap"].mean()
    texts = [f"{method} {number(value)}" for method, value in means.items()]
    return _strip_plot(
        done, "gap", styles, "best-minus-last", "Effect of choosing the best epoch",
        "best minus last epoch (points of top-1)",
        "Top-1 at the best epoch minus top-1 at the last; each dot is a run, each bar a mean. "
        f"{join_names(texts)}.",
    )  # fmt: skip


def agreement(measured: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return students' agreement with their teacher by method, or ``None``.

    Agreement is the share of images with the same predicted class. There is a dot for each run.
    """
    known = measured.dropna(subset=["agreement"])
    if known.empty:
        return None
    means = known.groupby("method", sort=False)["agreement"].mean()
    texts = [f"{method} {number(value)} %" for method, value in means.items()]
    return _strip_plot(
        known, "agreement", styles, "agreement", "Agreement with the teacher",
        "same prediction as the teacher (%)",
        "Share of evaluated images on which student and teacher predict the same class; each dot "
        f"is a run, each bar a mean. {join_names(texts)}.",
    )  # fmt: skip


def _strip_plot(
    data: pd.DataFrame,
    column: str,
    styles: Mapping[str, MethodStyle],
    name: str,
    title: str,
    label: str,
    description: str,
) -> RenderedFigure:
    def plot(axes: Axes) -> None:
        plot_dots(axes, data, column, styles, size=5)
        axes.set(xlabel=label, ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))

    return render_figure(
        name, title, description, plot, (4.6, 1.0 + 0.3 * data["method"].nunique())
    )
