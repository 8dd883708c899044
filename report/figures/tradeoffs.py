"""Figures of one pair's accuracy against the training cost, and against a setting's value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from report.figures.method_styles import MethodStyle
from report.figures.plotting import legend_below
from report.figures.rendered import RenderedFigure
from report.figures.style import render_figure
from report.formats import join_names, number
from report.frames.cells import PairFinding
from report.frames.method_variants import SettingCurve
from report.statistics.intervals import Summary, summarise

LOG_FROM = 4  # ratio of the largest to the smallest value from which their axis is logarithmic


def accuracy_against_cost(
    runs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, pair: str
) -> RenderedFigure | None:
    """Return one pair's mean accuracy against the mean step time, with a point for each method.

    Returns ``None`` for fewer than two methods.
    """
    done = runs[runs["outcome"] == "done"].dropna(subset=["seconds_per_step"])
    points = {
        method: (1000 * data["seconds_per_step"].mean(), summarise(data["last_top1"]))
        for method, data in done.groupby("method", sort=False)
    }
    if len(points) < 2:
        return None

    def plot(axes: Axes) -> None:
        for method, (cost, accuracy) in points.items():
            style = styles[method]
            axes.errorbar(
                cost, accuracy.mean, yerr=accuracy.sd or 0, fmt=style.marker, color=style.colour,
                markersize=5, elinewidth=1, label=style.label,
            )  # fmt: skip
        axes.set(xlabel="time of a training step (ms)", ylabel="top-1 accuracy, last epoch (%)")
        legend_below(axes)

    texts = [f"{styles[m].label} {number(a.mean)} % at {c:.3g} ms" for m, (c, a) in points.items()]
    description = (
        f"Accuracy of {pair} against the measured time of a training step; bars are ± one sample "
        f"standard deviation. Means: {join_names(texts)}."
    )
    return render_figure(name, "Accuracy against cost", description, plot)


def temperature(
    pair: PairFinding,
    groups: Sequence[Mapping[float, str]],
    styles: Mapping[str, MethodStyle],
    name: str,
    title: str,
) -> RenderedFigure | None:
    """Return one pair's accuracy against the temperature, with a line for each group of methods.

    Args:
        pair: its findings.
        groups: the methods that differ in their temperature only, by temperature.
        styles: of the methods.
        name: of the figure.
        title: the pair's display name.
    """
    lines = {}
    for group in groups:
        cells = {T: pair.cell(method) for T, method in group.items()}
        known = {T: cell.last for T, cell in cells.items() if cell is not None and cell.done}
        if len(known) > 1:
            lines[min(group.values(), key=len)] = known
    if not lines:
        return None

    def plot(axes: Axes) -> None:
        for method, known in lines.items():
            style = styles[method]
            axes.errorbar(
                list(known), [summary.mean for summary in known.values()],
                yerr=[summary.sd or 0 for summary in known.values()], markersize=4, elinewidth=1,
                color=style.colour, linestyle=style.dash, marker=style.marker, label=style.label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({T for known in lines.values() for T in known}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="temperature T", ylabel="top-1 accuracy, last epoch (%)")
        legend_below(axes)

    texts = [
        f"{styles[method].label}: "
        + ", ".join(f"{number(summary.mean)} % at T = {T:g}" for T, summary in known.items())
        for method, known in lines.items()
    ]
    description = (
        f"Accuracy of {title} against the temperature of softening and loss; bars are ± one "
        f"sample standard deviation. Means: {'; '.join(texts)}."
    )
    return render_figure(name, "Sensitivity to the temperature", description, plot)


def sensitivity(
    pair: PairFinding,
    curves: Sequence[SettingCurve],
    styles: Mapping[str, MethodStyle],
    name: str,
    title: str,
) -> RenderedFigure | None:
    """Return one pair's accuracy against the value of a setting, with its 95 % intervals.

    Args:
        pair: its findings.
        curves: of one setting; each is a line.
        styles: of the methods.
        name: of the figure.
        title: the pair's display name.
    """
    lines: list[tuple[str, MethodStyle, dict[float, Summary]]] = []
    for label, curve in zip(_curve_labels(curves), curves, strict=True):
        cells = {value: pair.cell(method) for value, method in curve.methods.items()}
        known = {value: cell.last for value, cell in cells.items() if cell and cell.done}
        if len(known) > 1:
            lines.append((label, styles[next(iter(curve.methods.values()))], known))
    if not lines:
        return None
    values = sorted({value for _, _, known in lines for value in known})

    def plot(axes: Axes) -> None:
        for label, style, known in lines:
            axes.errorbar(
                list(known), [summary.mean for summary in known.values()],
                yerr=_interval_bars(known.values()), marker=style.marker, markersize=4, capsize=2,
                color=style.colour, linestyle=style.dash, elinewidth=1, label=label,
            )  # fmt: skip
        if values[0] > 0 and values[-1] / values[0] >= LOG_FROM:
            axes.set_xscale("log")
        axes.set_xticks(values)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=curves[0].label, ylabel="top-1 accuracy, last epoch (%)")
        legend_below(axes)

    texts = [
        f"{label}: " + ", ".join(f"{number(s.mean)} % at {value:g}" for value, s in known.items())
        for label, _, known in lines
    ]
    description = (
        f"Accuracy of {title} against {curves[0].label}, all else equal; bars are 95 % "
        f"intervals of the mean over seeds. Means: {'; '.join(texts)}."
    )
    return render_figure(name, f"Sensitivity to {curves[0].label}", description, plot)


def _curve_labels(curves: Sequence[SettingCurve]) -> list[str]:
    """Return the common start of the names of each curve's methods, if it tells them apart."""
    names = [list(curve.methods.values()) for curve in curves]
    starts = [_common_start(methods) for methods in names]
    shortest = [
        start or min(methods, key=len) for start, methods in zip(starts, names, strict=True)
    ]
    if len(set(shortest)) == len(shortest):
        return shortest
    return [f"{methods[0]} …" for methods in names]


def _common_start(names: Sequence[str]) -> str:
    """Return the parts of hyphenated names that all of them start with."""
    parts = zip(*(name.split("-") for name in names), strict=False)
    return "-".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, parts))


def _interval_bars(summaries: Collection[Summary]) -> list[list[float]]:
    """Return the lengths of the bars below and above the means; 0 without an interval."""
    bounds = [summary.interval or (summary.mean, summary.mean) for summary in summaries]
    pairs = list(zip(summaries, bounds, strict=True))
    return [
        [summary.mean - low for summary, (low, _) in pairs],
        [high - summary.mean for summary, (_, high) in pairs],
    ]
