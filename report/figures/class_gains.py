"""The figure of one pair's gains by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from report.figures.method_styles import MethodStyle
from report.figures.plotting import legend_below
from report.figures.rendered import RenderedFigure
from report.figures.style import INK, render_figure
from report.formats import join_names, number
from report.frames.analysis import PairAnalysis
from report.frames.cells import CONTROL

MAX_NAMED_CLASSES = 20  # with more, their names do not fit below the axis
MAX_LETTERS = 50  # of all names; with more, they stand upright

Gains = Mapping[str, np.ndarray]  # by method, in points, each (C,)


def per_class_gain(
    analysis: PairAnalysis,
    styles: Mapping[str, MethodStyle],
    name: str,
    pair: str,
    methods: Sequence[str],
) -> RenderedFigure | None:
    """Return the classes' gains over the student alone, with a line for each method.

    A few classes are named and have the order of the first method's gains. Many classes are sorted
    for each method. The gains are means over seeds. Returns ``None`` if no class gains or loses.
    """
    control = _mean_class_accuracies(analysis, CONTROL)
    if control is None:
        return None
    known = np.flatnonzero(~np.isnan(control))  # the classes with test images
    gains = {
        method: (accuracies - control)[known]
        for method in methods
        if method != CONTROL
        and (accuracies := _mean_class_accuracies(analysis, method)) is not None
    }
    if not any(gain.any() for gain in gains.values()):
        return None
    names = [analysis.classes[place] for place in known]
    named = len(names) <= MAX_NAMED_CLASSES

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.8)
        if named:
            _plot_named(axes, gains, names, styles)
        else:
            _plot_spread(axes, gains, styles)
        axes.set_ylabel("gain over student alone (points)")
        legend_below(axes)

    texts = [
        f"{styles[m].label} {number(100 * (g > 0).mean(), 0)} % of classes"
        for m, g in gains.items()
    ]
    by = f"the gain of {styles[next(iter(gains))].label}" if named else "gain for each method"
    description = (
        f"Accuracy of each class minus that of the student alone for {pair}, mean over seeds; "
        f"classes are sorted by {by}. Better than alone: {join_names(texts)}."
    )
    title = "Which classes gain" if named else "Spread of the gain over classes"
    return render_figure(name, title, description, plot)


def _plot_named(
    axes: Axes, gains: Gains, names: Sequence[str], styles: Mapping[str, MethodStyle]
) -> None:
    """Draw the classes in the order of the first method's gains."""
    first = next(iter(gains))
    order = np.argsort(-gains[first], kind="stable")
    for method, gain in gains.items():
        style = styles[method]
        axes.plot(
            gain[order], color=style.colour, linestyle=style.dash, marker=style.marker,
            markersize=4.5, linewidth=0.8, label=style.label,
        )  # fmt: skip
    rotation = 90 if sum(map(len, names)) > MAX_LETTERS else 0
    ordered = [names[place] for place in order]
    axes.set_xticks(range(len(names)), ordered, fontsize=8, rotation=rotation)
    axes.set_xlabel(f"class, sorted by the gain of {styles[first].label}")


def _plot_spread(axes: Axes, gains: Gains, styles: Mapping[str, MethodStyle]) -> None:
    """Draw the classes sorted for each method."""
    for method, gain in gains.items():
        style = styles[method]
        places = np.linspace(0, 100, len(gain))
        values = np.sort(gain)[::-1]
        axes.plot(places, values, color=style.colour, linestyle=style.dash, label=style.label)
    axes.set_xlabel("share of classes, sorted for each method (%)")


def _mean_class_accuracies(analysis: PairAnalysis, method: str) -> np.ndarray | None:
    """Return the accuracy of each class (C,), NaN for a class without images; or ``None``."""
    if method not in analysis.runs:
        return None
    accuracies = [run.per_class_top1 for run in analysis.runs[method]]
    return np.array(accuracies, dtype=float).mean(axis=0)
