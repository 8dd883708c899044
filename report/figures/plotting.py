"""Plotting functions that several figures share: lines with bands, dots, axes, legends."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from report.figures.style import INK, MethodStyle


def plot_mean_and_sd(
    axes: Axes, data: pd.DataFrame, column: str, style: MethodStyle, label: str
) -> None:
    """Draw the mean over runs, with a band of ± one sample standard deviation."""
    by_epoch = data.groupby("epoch")[column]
    mean, sd = by_epoch.mean(), by_epoch.std().fillna(0.0)
    axes.plot(mean.index, mean, color=style.colour, linestyle=style.dash, label=label)
    axes.fill_between(mean.index, mean - sd, mean + sd, color=style.colour, alpha=0.18, linewidth=0)


def plot_each_run(
    axes: Axes, data: pd.DataFrame, column: str, style: MethodStyle, label: str
) -> None:
    """Draw a line for each run. A mean would hide a single collapsed seed."""
    for i, (_, run) in enumerate(data.groupby("seed")):
        axes.plot(
            run["epoch"], run[column], color=style.colour, linestyle=style.dash, alpha=0.85,
            linewidth=1.2, label="_" if i else label,
        )  # fmt: skip


def plot_dots(
    axes: Axes, data: pd.DataFrame, column: str, styles: Mapping[str, MethodStyle], size: float
) -> None:
    """Draw a row for each method, with a dot for each run and a bar at the mean."""
    methods = list(data["method"].unique())
    sns.stripplot(
        data, x=column, y="method", order=methods, hue="method",
        palette={method: styles[method].colour for method in methods}, size=size, alpha=0.75,
        jitter=False, legend=False, ax=axes,
    )  # fmt: skip
    for y, method in enumerate(methods):
        mean = data.loc[data["method"] == method, column].mean()
        axes.plot([mean, mean], [y - 0.3, y + 0.3], color=INK, linewidth=1.8)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def label_epochs(axes: Axes, label: str) -> None:
    """Label the axes of a panel with epochs on the x axis."""
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def legend_below(axes: Axes, entries: int) -> None:
    """Put a figure's legend below the axes."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles, labels, loc="outside lower left", ncols=min(entries, 4 if entries > 4 else 2),
        fontsize=8, handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip


def pair_and_methods(frame: pd.DataFrame) -> tuple[str, list[str]]:
    """Return the label of a pair, and its methods in the order of the sheet."""
    return frame["pair"].iloc[0], list(frame["method"].unique())
