"""What one pair's networks say of the test images: calibration, classes, correlations, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from report.figures.plotting import legend_below
from report.figures.style import GRID, INK, MethodStyle, RenderedFigure, render_figure
from report.formats import join_names, number, plural
from report.frames.analysis import PairAnalysis
from report.frames.cells import CONTROL

MAX_COLUMNS = 4  # of panels
SHARE = 0.01  # of the images: a bin with fewer is too noisy to draw


def calibration(
    analysis: PairAnalysis, styles: Mapping[str, MethodStyle], name: str
) -> RenderedFigure | None:
    """Return the reliability diagram: accuracy against confidence, a line a method, all seeds."""
    curves = {}
    for method, runs in analysis.runs.items():
        bins = np.array([run.reliability for run in runs], dtype=float)  # seeds, bins, 3
        counts = bins[:, :, 0]
        total = counts.sum(axis=0)
        kept = total >= SHARE * total.sum()
        weights = np.where(counts > 0, counts, 0)[:, kept] / total[kept]
        values = np.nan_to_num(bins[:, kept, 1:])
        curves[method] = (weights[:, :, None] * values).sum(axis=0)
    if not curves:
        return None

    def plot(axes: Axes) -> None:
        axes.plot((0, 100), (0, 100), color=GRID, linewidth=1)
        for method, curve in curves.items():
            look = styles[method]
            axes.plot(
                curve[:, 0], curve[:, 1], color=look.colour, linestyle=look.dash,
                marker="o", markersize=2.5, linewidth=1.2, label=method,
            )  # fmt: skip
        axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
        legend_below(axes, len(curves))

    errors = [
        f"{m} {number(np.mean([r.ece for r in runs]))} %" for m, runs in analysis.runs.items()
    ]
    description = (
        f"Reliability of {analysis.pair}: accuracy against confidence in 15 bins, seeds together, "
        "those with less than a hundredth of the images left out; on the diagonal a network is "
        f"calibrated. Expected calibration errors: {join_names(errors)}."
    )
    return render_figure(name, "Calibration", description, plot)


def per_class_gain(
    analysis: PairAnalysis, styles: Mapping[str, MethodStyle], name: str, methods: Sequence[str]
) -> RenderedFigure | None:
    """Return each class's gain over the student alone, sorted, mean over seeds, a line a method."""
    control = _per_class(analysis, CONTROL)
    gains = {
        method: np.sort(gain[~np.isnan(gain)])[::-1]
        for method in methods
        if method != CONTROL and control is not None
        and (own := _per_class(analysis, method)) is not None
        for gain in [own - control]
    }  # fmt: skip
    if not gains:
        return None

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.8)
        for method, gain in gains.items():
            look = styles[method]
            places = np.linspace(0, 100, len(gain))
            axes.plot(places, gain, color=look.colour, linestyle=look.dash, label=method)
        axes.set(xlabel="classes, sorted by gain (%)", ylabel="gain over alone (points)")
        legend_below(axes, len(gains))

    said = [f"{m} {number(100 * (g > 0).mean(), 0)} % of classes" for m, g in gains.items()]
    description = (
        f"Per-class accuracy of {analysis.pair} minus the student alone's, mean over seeds, classes "
        f"sorted for each method. Better than alone: {join_names(said)}."
    )
    return render_figure(name, "Which classes gain", description, plot)


def correlations(
    analysis: PairAnalysis, name: str, methods: Sequence[str]
) -> RenderedFigure | None:
    """Return how teacher's and students' class correlations differ, a panel a method.

    The difference of the Pearson correlations between class logits over the test images (Tian et
    al. 2020, figure 1): the paler, the more of the teacher's knowledge of classes was taken over.
    """
    teacher = analysis.teacher_correlation
    own = {m: analysis.correlations[m] for m in methods if m in analysis.correlations}
    if teacher is None or not own:
        return None
    differences = {m: np.abs(c.astype(float) - teacher) for m, c in own.items()}
    means = {method: float(gap.mean()) for method, gap in differences.items()}
    top = max(0.1, float(np.quantile(np.stack(list(differences.values())), 0.99)))

    def plot(panels: Any) -> None:
        for axes, (method, gap) in _fill(panels, differences.items()):
            image = axes.imshow(gap, cmap="magma_r", vmin=0, vmax=top, interpolation="nearest")
            axes.set_title(f"{method}\nmean {means[method]:.3f}", fontsize=8, weight="normal")
            _bare(axes)
        bar = axes.figure.colorbar(image, ax=panels, shrink=0.6, aspect=30)
        bar.outline.set_visible(False)

    said = [f"{method} {mean:.3f}" for method, mean in means.items()]
    description = (
        "Absolute difference between the class correlations of teacher and student for "
        f"{analysis.pair}, one seed. Means: {join_names(said)}."
    )
    return _panels(name, "Class correlations: teacher minus student", description, plot, len(own))


def embeddings(analysis: PairAnalysis, name: str) -> RenderedFigure | None:
    """Return the t-SNE of penultimate features, a panel a network, a colour a class."""
    if not analysis.embeddings:
        return None
    labels = analysis.embedding_labels

    def plot(panels: Any) -> None:
        colours = mpl.colormaps["tab10"].colors
        for axes, (what, points) in _fill(panels, analysis.embeddings.items()):
            for label in np.unique(labels):
                own = points[labels == label]
                axes.scatter(
                    own[:, 0],
                    own[:, 1],
                    s=4,
                    color=colours[label % 10],
                    linewidths=0,
                    rasterized=True,
                )
            axes.set_title(what, fontsize=8, weight="normal")
            _bare(axes)

    names = [analysis.classes[label] for label in np.unique(labels)]
    description = (
        f"t-SNE of the penultimate features of {join_names(list(analysis.embeddings))} for "
        f"{analysis.pair}, one seed; a colour is a class: {join_names(names)}. Distances between "
        "clusters mean nothing."
    )
    title = "Penultimate features (t-SNE)"
    return _panels(name, title, description, plot, len(analysis.embeddings))


def simplifier_examples(analysis: PairAnalysis, name: str) -> RenderedFigure | None:
    """Return what the simplifier makes of single images, for the first method that has one.

    A row an image: the picture and its label, then the probabilities of its likeliest classes in
    the raw, softened and simplified teacher, and in the student.
    """
    if not analysis.examples:
        return None
    example = analysis.examples[0]
    count = len(example.labels)
    stages = {"raw": example.raw, "softened": example.softened, "simplified": example.simplified}
    stages["student"] = example.student
    shades = ("#24292f", "#8c959f", "#de8f05", "#0173b2")

    def plot(grid: Any) -> None:
        panels = np.atleast_2d(grid)
        panels[0][0].get_gridspec().set_width_ratios((1, 3))
        for row, (picture, label) in enumerate(zip(example.images, example.labels, strict=True)):
            axes = panels[row][0]
            axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(analysis.classes[label], fontsize=8, weight="normal")
            _bare(axes)
            top = np.argsort(-stages["simplified"][row], kind="stable")[:5]
            axes = panels[row][1]
            for place, ((stage, values), shade) in enumerate(
                zip(stages.items(), shades, strict=True)
            ):
                axes.bar(
                    np.arange(len(top)) + 0.2 * (place - 1.5), 100 * values[row][top], width=0.19,
                    color=shade, label=stage if row == 0 else "_",
                )  # fmt: skip
            axes.set_xticks(range(len(top)), [analysis.classes[c] for c in top], fontsize=7)
            axes.set_ylabel("%")
            axes.grid(axis="x", visible=False)
        legend_below(panels[0][1], 4)

    title = f"What the simplifier does, {example.method}"
    description = (
        f"{title} on {analysis.pair}, seed {example.seed}: {plural(count, 'image')} that were not "
        "trained on, probabilities in percent of the five likeliest classes of the simplified "
        f"teacher; softened and simplified at T = {example.temperature:g}, raw and student at 1. "
        "Attention runs over the batch, so the other images count too."
    )
    return render_figure(name, title, description, plot, (5.4, 0.9 + 1.25 * count), (count, 2))


def _per_class(found: PairAnalysis, method: str) -> np.ndarray | None:
    if method not in found.runs:
        return None
    return np.array([run.per_class_top1 for run in found.runs[method]], dtype=float).mean(axis=0)


def _panels(name: str, title: str, description: str, plot: Any, count: int) -> RenderedFigure:
    columns = min(MAX_COLUMNS, count)
    rows = -(-count // columns)
    size = (1.75 * max(columns, 2) + 0.6, 0.5 + 1.95 * rows)
    shape = (rows, columns) if count > 1 else (1, 1)
    return render_figure(name, title, description, plot, size, shape)


def _fill(panels: Any, items: Any) -> list[tuple[Axes, Any]]:
    """Return items with their axes; axes left over are switched off."""
    every = list(np.atleast_1d(panels).flat)
    chosen = list(items)
    for axes in every[len(chosen) :]:
        axes.axis("off")
    return list(zip(every, chosen, strict=False))


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
