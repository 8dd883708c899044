"""Figures of one pair's accuracies: learning curves, and every seed at the last epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from report.figures.method_styles import MethodStyle, family
from report.figures.plotting import (
    label_epochs,
    legend_below,
    methods_of,
    plot_dots,
    plot_mean_and_sd,
)
from report.figures.rendered import RenderedFigure
from report.figures.style import GRID, PANEL_COLUMNS, render_figure
from report.formats import join_names, number, plural
from report.frames.cells import CONTROL

BAND = "lines are means over seeds, bands are ± one sample standard deviation"
MAX_LINES = 4  # with more, the bands overlap and each family of methods has a panel
MAX_PANELS = 12
ZOOM_FROM = 10  # epochs; with fewer, the axis of accuracies shows all of them
ZOOM_SHARE = 0.25  # of the epochs: the accuracies of the last ones set the limits of the axis
COLUMN = "test_top1"


def learning_curves(
    epochs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, pair: str, split: str
) -> RenderedFigure | None:
    """Return one pair's top-1 accuracy against the epoch.

    All methods are in one panel if they are few. Otherwise there is a panel for each method and its
    combination with SKD, with the student alone in each. Returns ``None`` for a single epoch.

    Args:
        epochs: the pair's frame of epochs.
        styles: of the methods.
        name: of the figure.
        pair: the pair's display name.
        split: the evaluated images.
    """
    if epochs.empty or epochs["epoch"].nunique() < 2:
        return None
    methods = methods_of(epochs)
    by_method = {method: epochs[epochs["method"] == method] for method in methods}
    groups = [methods] if len(methods) <= MAX_LINES else panel_groups(methods)
    limits = accuracy_limits(epochs)

    def plot_single(axes: Axes) -> None:
        for method in methods:
            plot_mean_and_sd(axes, by_method[method], COLUMN, styles[method])
        axes.set_ylim(limits)
        label_epochs(axes, f"top-1 accuracy, {split} images (%)")
        legend_below(axes)

    def plot_panels(panels: Any) -> None:
        means = {method: data.groupby("epoch")[COLUMN].mean() for method, data in by_method.items()}
        _plot_groups(panels, groups, by_method, means, styles)
        panels.flat[0].set_ylim(limits)
        for axes in panels[:, 0]:
            axes.set_ylabel(f"top-1, {split} (%)", fontsize=8)

    ends = epochs[epochs["epoch"] == epochs["epoch"].max()].groupby("method", sort=False)
    finals = [f"{styles[m].label} {number(value)} %" for m, value in ends[COLUMN].mean().items()]
    labels = [styles[method].label for method in methods]
    zoomed = "; the axis shows the last quarter of the epochs, earlier values may lie outside"
    description = (
        f"Top-1 accuracy on {split} images for {pair}: {BAND}"
        f"{zoomed if is_zoomed(epochs) else ''}. "
        f"Methods: {join_names(labels)}. Means at the last epoch: {join_names(finals)}."
    )
    title = "Learning curves"
    if len(groups) == 1:
        return render_figure(name, title, description, plot_single)
    rows = math.ceil(len(groups) / PANEL_COLUMNS)
    shape = (rows, PANEL_COLUMNS)
    height = 0.9 + 1.6 * rows
    return render_figure(name, title, description, plot_panels, height, shape, share_axes=True)


def panel_groups(methods: Sequence[str]) -> list[list[str]]:
    """Return the methods of each panel, without the student alone.

    A method and its combination with SKD share a panel. If that gives too many panels, methods
    share them in the order of the sheet.
    """
    others = [method for method in methods if method != CONTROL]
    families: dict[str, list[str]] = {}
    for method in others:
        families.setdefault(family(method), []).append(method)
    if len(families) <= MAX_PANELS:
        return list(families.values())
    ordered = [method for members in families.values() for method in members]
    size = max(MAX_LINES - 1, math.ceil(len(ordered) / MAX_PANELS))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def is_zoomed(epochs: pd.DataFrame) -> bool:
    """Return whether the accuracies of the first epochs may lie outside the axis."""
    return epochs["epoch"].nunique() >= ZOOM_FROM


def accuracy_limits(epochs: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of the accuracy axis.

    It holds all methods' means of the last epochs, and ± one standard deviation at the very last.
    If there are few epochs, it holds means and ± one standard deviation of all of them.
    """
    if not is_zoomed(epochs):
        every = epochs.groupby(["method", "epoch"])[COLUMN]
        mean, sd = every.mean(), every.std().fillna(0.0)
        low, high = float((mean - sd).min()), float((mean + sd).max())
        pad = max(0.04 * (high - low), 0.05)
        return low - pad, high + pad
    last = epochs["epoch"].max()
    late = epochs[epochs["epoch"] > (1 - ZOOM_SHARE) * last].groupby(["method", "epoch"])[COLUMN]
    ends = epochs[epochs["epoch"] == last].groupby("method")[COLUMN]
    mean, sd = ends.mean(), ends.std().fillna(0.0)
    low = float(min(late.mean().min(), (mean - sd).min()))
    high = float(max(late.mean().max(), (mean + sd).max()))
    pad = max(0.08 * (high - low), 0.05)
    return low - pad, high + pad


def _plot_groups(
    panels: Any,
    groups: Sequence[Sequence[str]],
    by_method: Mapping[str, pd.DataFrame],
    means: Mapping[str, pd.Series],
    styles: Mapping[str, MethodStyle],
) -> None:
    """Draw a panel for each group before thin lines of all other methods."""
    all_axes = list(panels.flat)
    for axes, group in zip(all_axes, groups, strict=False):
        for method, mean in means.items():
            if method not in (*group, CONTROL):
                axes.plot(mean.index, mean, color=GRID, linewidth=0.8)
        for method in [m for m in (CONTROL, *group) if m in by_method]:
            plot_mean_and_sd(axes, by_method[method], COLUMN, styles[method])
        label_epochs(axes, "", ticks=4)
        handles, labels = axes.get_legend_handles_labels()
        own = [i for i, label in enumerate(labels) if label in [styles[m].label for m in group]]
        axes.legend(
            [handles[i] for i in own], [labels[i] for i in own], loc="lower left",
            bbox_to_anchor=(0, 1), ncols=2, fontsize=7.5, borderaxespad=0.1, borderpad=0.1,
            handlelength=2.0, columnspacing=0.8, handletextpad=0.5,
        )  # fmt: skip
    # The x axis is labelled in the last row, and in the row above if the last one is not full.
    labelled = (len(groups) - PANEL_COLUMNS) // PANEL_COLUMNS * PANEL_COLUMNS
    for axes in all_axes[:labelled]:
        axes.set_xlabel("")
    for axes in all_axes[labelled:]:
        axes.tick_params(labelbottom=True)
    for axes in all_axes[len(groups) :]:
        axes.axis("off")
    context = [Line2D([], [], color=GRID, linewidth=0.8, label="other methods")]
    if CONTROL in by_method:
        style = styles[CONTROL]
        context.insert(0, Line2D([], [], color=style.colour, label=style.label))
    all_axes[0].figure.legend(handles=context, loc="outside lower left", ncols=2, fontsize=8)


def last_epoch_dots(
    runs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, pair: str, split: str
) -> RenderedFigure | None:
    """Return one pair's last-epoch accuracies, with a mark for each seed and a bar at the mean.

    Returns ``None`` for fewer than two runs.
    """
    done = runs[runs["outcome"] == "done"]
    if len(done) < 2:
        return None

    def plot(axes: Axes) -> None:
        plot_dots(axes, done, "last_top1", styles, size=6)
        axes.set(xlabel=f"top-1 accuracy at the last epoch, {split} images (%)", ylabel="")

    means = done.groupby("method", sort=False)["last_top1"].agg(["mean", "count"])
    texts = [
        f"{styles[method].label} {number(row['mean'])} % ({plural(int(row['count']), 'seed')})"
        for method, row in means.iterrows()
    ]
    description = (
        f"Last-epoch accuracy for {pair}: each mark is a seed, each bar a mean. "
        f"Means: {join_names(texts)}."
    )
    height = 1.0 + 0.27 * len(means)
    return render_figure(name, "Every seed at the last epoch", description, plot, height)
