"""Parts that several figures share: lines with bands, a line a run, legends."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from report.figures.look import Look


def line(axes: Axes, data: pd.DataFrame, column: str, look: Look, label: str) -> None:
    """Draw the mean over runs, and a band of one sample standard deviation to either side."""
    by_epoch = data.groupby("epoch")[column]
    mean, sd = by_epoch.mean(), by_epoch.std().fillna(0.0)
    axes.plot(mean.index, mean, color=look.colour, linestyle=look.dash, label=label)
    axes.fill_between(mean.index, mean - sd, mean + sd, color=look.colour, alpha=0.18, linewidth=0)


def each_run(axes: Axes, data: pd.DataFrame, column: str, look: Look, label: str) -> None:
    """Draw a line a run: a mean would hide the one seed that collapsed."""
    for place, (_, run) in enumerate(data.groupby("seed")):
        axes.plot(
            run["epoch"], run[column], color=look.colour, linestyle=look.dash, alpha=0.85,
            linewidth=1.2, label="_" if place else label,
        )  # fmt: skip


def label_epochs(axes: Axes, label: str) -> None:
    """Label a panel over epochs."""
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def legend_below(axes: Axes, entries: int) -> None:
    """Put a figure's legend below it."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles, labels, loc="outside lower left", ncols=min(entries, 4 if entries > 4 else 2),
        fontsize=8, handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip


def pair_and_methods(frame: pd.DataFrame) -> tuple[str, list[str]]:
    """Return one pair's name, and its methods in the order of the sheet."""
    return frame["pair"].iloc[0], list(frame["method"].unique())
