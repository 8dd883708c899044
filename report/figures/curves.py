"""Figures of one pair's accuracies: learning curves, and every seed at the last epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from report.figures.plotting import (
    label_epochs,
    legend_below,
    pair_and_methods,
    plot_dots,
    plot_mean_and_sd,
)
from report.figures.style import MethodStyle, RenderedFigure, render_figure
from report.formats import join_names, number, plural

BAND = "Lines are means over seeds; bands are ± one sample standard deviation."


def learning_curves(
    epochs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, split: str
) -> RenderedFigure | None:
    """Return one pair's top-1 accuracy against the epoch, with a line for each method."""
    if epochs.empty:
        return None
    pair, methods = pair_and_methods(epochs)

    def plot(axes: Axes) -> None:
        for method in methods:
            plot_mean_and_sd(
                axes, epochs[epochs["method"] == method], "test_top1", styles[method], method
            )
        label_epochs(axes, f"top-1 accuracy, {split} images (%)")
        legend_below(axes, len(methods))

    ends = epochs[epochs["epoch"] == epochs["epoch"].max()].groupby("method", sort=False)
    finals = [f"{method} {number(value)} %" for method, value in ends["test_top1"].mean().items()]
    description = (
        f"Learning curves of {join_names(methods)} for {pair}. {BAND} "
        f"Means at the last epoch: {join_names(finals)}."
    )
    return render_figure(name, pair, description, plot)


def last_epoch_dots(
    runs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, split: str
) -> RenderedFigure:
    """Return one pair's last-epoch accuracies, with a dot for each seed and a bar at the mean."""
    done = runs[runs["outcome"] == "done"]
    pair, methods = pair_and_methods(done)

    def plot(axes: Axes) -> None:
        plot_dots(axes, done, "last_top1", styles, size=6.5)
        axes.set(xlabel=f"top-1 accuracy at the last epoch, {split} images (%)", ylabel="")

    means = done.groupby("method", sort=False)["last_top1"].agg(["mean", "count"])
    texts = [
        f"{method} {number(row['mean'])} % ({plural(int(row['count']), 'seed')})"
        for method, row in means.iterrows()
    ]
    description = (
        f"Last-epoch accuracy for {pair}: each dot is a seed, each bar a mean. "
        f"Means: {join_names(texts)}."
    )
    return render_figure(name, pair, description, plot, size=(4.6, 1.0 + 0.32 * len(methods)))
