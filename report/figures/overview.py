"""Figures over all pairs: verdicts, effect of choosing the best epoch, agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from report.figures.method_styles import CONTROL_COLOUR, MethodStyle
from report.figures.plotting import plot_dots
from report.figures.rendered import RenderedFigure
from report.figures.style import GRID, INK, render_figure
from report.formats import join_names, number, plural
from report.frames.cells import PairFinding
from report.names import Names
from report.statistics.intervals import CONFIDENCE, EQUIVALENCE_CONFIDENCE
from report.statistics.verdicts import VERDICT_KINDS, EpochComparison

# Colour and marker of each verdict.
VERDICT_LOOKS = {
    "reproduced": ("#0b7a54", "o"),
    "higher": ("#0173b2", "^"),
    "lower": ("#d05a00", "v"),
    "inconclusive": (CONTROL_COLOUR, "s"),
}
VISIBLE_GAP = 0.005  # points; a difference that a table shows as 0.00


def forest(pairs: Sequence[PairFinding], margin: float, names: Names) -> RenderedFigure | None:
    """Return ours minus published with its 90 and 95 % intervals for every verdict, or ``None``.

    The rows of a pair stand below its name.
    """
    lines: list[tuple[str, EpochComparison | None, str]] = []  # a pair's name has no comparison
    for pair in pairs:
        rows = [
            (f"{names.method(cell.method)} ({row.epoch})" if len(known) > 1
             else names.method(cell.method), row, cell.verdict.kind)
            for cell in pair.cells
            if cell.verdict is not None
            for known in [[row for row in cell.verdict.comparisons if row.difference is not None]]
            for row in known
        ]  # fmt: skip
        if rows:
            lines += [(names.pair(pair), None, ""), *rows]
    rows = [(y, row, kind) for y, (_, row, kind) in enumerate(lines) if row is not None]
    if not rows:
        return None
    counts = Counter(kind for _, _, kind in rows)

    def plot(axes: Axes) -> None:
        axes.axvspan(-margin, margin, color=GRID, alpha=0.5, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for y, comparison, kind in rows:
            _draw_comparison(axes, y, comparison, kind)
        axes.set_yticks(range(len(lines)), [name for name, _, _ in lines], fontsize=8)
        for label, (_, row, _) in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("normal" if row else "bold")
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel("ours minus published (points of top-1)")
        axes.grid(axis="y", visible=False)
        _add_verdicts(axes, [kind for kind in VERDICT_KINDS if counts[kind]])

    texts = [f"{counts[kind]} {kind}" for kind in VERDICT_KINDS]
    description = (
        "Ours minus published: the thick line is the 90 % interval, the thin line the 95 % "
        f"interval, the grey band the margin of {margin:g} points, a hollow mark one seed. There "
        "is a row for each comparison, and two rows if the published epoch is unstated. "
        f"Of {plural(len(rows), 'comparison')}: "
        f"{join_names(texts)}."
    )
    height = 1.3 + 0.19 * len(lines)
    return render_figure("forest", "Every published value", description, plot, height)


def _draw_comparison(axes: Axes, y: float, comparison: EpochComparison, kind: str) -> None:
    difference = comparison.difference
    colour, marker = VERDICT_LOOKS[kind]
    for confidence, width in ((CONFIDENCE, 1.0), (EQUIVALENCE_CONFIDENCE, 3.0)):
        if bounds := difference.interval(confidence):
            axes.plot(bounds, (y, y), color=colour, linewidth=width)
    face = "none" if difference.se is None else colour
    axes.plot(difference.mean, y, marker, color=colour, markerfacecolor=face, markersize=5)


def _add_verdicts(axes: Axes, kinds: Sequence[str]) -> None:
    handles = []
    for kind in kinds:
        colour, marker = VERDICT_LOOKS[kind]
        handles.append(Line2D([], [], color=colour, marker=marker, label=kind))
    axes.figure.legend(
        handles=handles, loc="outside lower left", ncols=4, fontsize=7.5, handlelength=1.5,
        columnspacing=0.9,
    )  # fmt: skip


def best_minus_last(runs: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return best minus last epoch by method, with a mark for each run.

    Returns ``None`` if no run has gained from its best epoch.
    """
    done = runs[runs["outcome"] == "done"].drop_duplicates("id")
    done = done.assign(gap=done["best_top1"] - done["last_top1"])
    if not (done["gap"] >= VISIBLE_GAP).any():
        return None
    means = done.groupby("method", sort=False)["gap"].mean()
    texts = [f"{styles[method].label} {number(value)}" for method, value in means.items()]
    return _strip_plot(
        done, "gap", styles, "best-minus-last", "Effect of choosing the best epoch",
        "best minus last epoch (points of top-1)",
        "Top-1 at the best epoch minus top-1 at the last; each mark is a run, each bar a mean. "
        f"Means: {join_names(texts)}.",
    )  # fmt: skip


def agreement(measured: pd.DataFrame, styles: Mapping[str, MethodStyle]) -> RenderedFigure | None:
    """Return students' agreement with their teacher by method, or ``None``.

    Agreement is the share of images with the same predicted class. There is a mark for each run.
    """
    known = measured.dropna(subset=["agreement"])
    if known.empty:
        return None
    means = known.groupby("method", sort=False)["agreement"].mean()
    texts = [f"{styles[method].label} {number(value)} %" for method, value in means.items()]
    return _strip_plot(
        known, "agreement", styles, "agreement", "Agreement with the teacher",
        "same prediction as the teacher (%)",
        "Share of evaluated images on which student and teacher predict the same class; each mark "
        f"is a run, each bar a mean. Means: {join_names(texts)}.",
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

    height = 1.0 + 0.27 * data["method"].nunique()
    return render_figure(name, title, description, plot, height)
