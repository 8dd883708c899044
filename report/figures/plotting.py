"""Plotting functions that several figures share: lines with bands, dots, axes, legends."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from report.figures.method_styles import MethodStyle
from report.figures.style import INK, WIDTH

CHARACTER, HANDLE = 0.068, 0.5  # widths in inches: of a legend's letter, and of its symbol and gap


def plot_mean_and_sd(axes: Axes, data: pd.DataFrame, column: str, style: MethodStyle) -> None:
    """Draw the mean over runs, with a band of ± one sample standard deviation."""
    by_epoch = data.groupby("epoch")[column]
    mean, sd = by_epoch.mean(), by_epoch.std().fillna(0.0)
    axes.plot(mean.index, mean, color=style.colour, linestyle=style.dash, label=style.label)
    axes.fill_between(mean.index, mean - sd, mean + sd, color=style.colour, alpha=0.18, linewidth=0)


def plot_each_run(axes: Axes, data: pd.DataFrame, column: str, style: MethodStyle) -> None:
    """Draw a line for each run. A mean would hide a single collapsed seed."""
    for i, (_, run) in enumerate(data.groupby("seed")):
        axes.plot(
            run["epoch"], run[column], color=style.colour, linestyle=style.dash, alpha=0.85,
            linewidth=1.2, label="_" if i else style.label,
        )  # fmt: skip


def plot_dots(
    axes: Axes, data: pd.DataFrame, column: str, styles: Mapping[str, MethodStyle], size: float
) -> None:
    """Draw a row for each method, with a mark for each run and a bar at the mean."""
    methods = list(data["method"].unique())
    for y, method in enumerate(methods):
        values = data.loc[data["method"] == method, column]
        style = styles[method]
        axes.plot(
            values, [y] * len(values), style.marker, color=style.colour, markersize=size,
            markeredgewidth=0, alpha=0.85,
        )  # fmt: skip
        axes.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=INK, linewidth=1.8)
    axes.set_yticks(range(len(methods)), [styles[method].label for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def label_epochs(axes: Axes, label: str, ticks: int = 7) -> None:
    """Label the axes of a panel with epochs on the x axis."""
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))


def legend_below(axes: Axes) -> None:
    """Put a figure's legend below the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = max(1, int(WIDTH / (HANDLE + CHARACTER * longest)))
    axes.figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, fontsize=8, handlelength=2.6,
        columnspacing=1.2,
    )  # fmt: skip


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Return the methods of a frame in its order, which is that of the sheet."""
    return list(frame["method"].unique())
