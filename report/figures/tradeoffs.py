"""Figures of one pair's accuracy against the training cost, and against the temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from report.figures.plotting import legend_below
from report.figures.style import CONTROL_COLOUR, INK, MethodStyle, RenderedFigure, render_figure
from report.formats import join_names, number
from report.frames.cells import PairFinding
from report.statistics.intervals import summarise


def accuracy_against_cost(
    runs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str
) -> RenderedFigure | None:
    """Return one pair's mean accuracy against the mean step time, with a point for each method."""
    done = runs[runs["outcome"] == "done"].dropna(subset=["seconds_per_step"])
    pair = runs["pair"].iloc[0]
    points = {
        method: (1000 * data["seconds_per_step"].mean(), summarise(data["last_top1"]))
        for method, data in done.groupby("method", sort=False)
    }
    if not points:
        return None

    def plot(axes: Axes) -> None:
        for method, (cost, accuracy) in points.items():
            axes.errorbar(
                cost, accuracy.mean, yerr=accuracy.sd or 0, fmt="o", color=styles[method].colour,
                markersize=5, elinewidth=1, label=method,
            )  # fmt: skip
        axes.set(xlabel="time of a training step (ms)", ylabel="top-1 accuracy, last epoch (%)")
        legend_below(axes, len(points))

    texts = [f"{m} {number(a.mean)} % at {c:.3g} ms" for m, (c, a) in points.items()]
    description = (
        f"Accuracy of {pair} against the measured time of a training step; bars are ± one sample "
        f"standard deviation. {join_names(texts)}."
    )
    return render_figure(name, "Accuracy against cost", description, plot)


def temperature(
    pair: PairFinding, groups: Sequence[Mapping[float, str]], name: str
) -> RenderedFigure | None:
    """Return one pair's accuracy against the temperature, with a line for each group of methods."""
    lines = {}
    for group in groups:
        cells = {T: pair.cell(method) for T, method in group.items()}
        known = {T: cell.last for T, cell in cells.items() if cell is not None and cell.done}
        if len(known) > 1:
            lines[min(group.values(), key=len)] = known
    if not lines:
        return None

    def plot(axes: Axes) -> None:
        for i, (label, known) in enumerate(lines.items()):
            axes.errorbar(
                list(known), [summary.mean for summary in known.values()],
                yerr=[summary.sd or 0 for summary in known.values()], marker="o", markersize=4,
                color=(INK, CONTROL_COLOUR)[i % 2], elinewidth=1, label=label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({T for known in lines.values() for T in known}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="temperature T", ylabel="top-1 accuracy, last epoch (%)")
        legend_below(axes, len(lines))

    texts = [
        f"{label}: "
        + ", ".join(f"{number(summary.mean)} % at T = {T:g}" for T, summary in known.items())
        for label, known in lines.items()
    ]
    description = (
        f"Accuracy of {pair.pair} against the temperature of softening and loss; bars are ± one "
        f"sample standard deviation. {'; '.join(texts)}."
    )
    return render_figure(name, "Sensitivity to the temperature", description, plot)
