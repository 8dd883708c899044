"""Figures of one pair's predictions: calibration, correlations, features, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from report.figures.method_styles import CONTROL_COLOUR, HUES, MethodStyle
from report.figures.plotting import legend_below
from report.figures.rendered import RenderedFigure
from report.figures.style import GRID, INK, PANEL_COLUMNS, render_figure
from report.formats import join_names, number, plural
from report.frames.analysis import PairAnalysis

CLASS_COLOURS = [tones[place % 2] for place, tones in enumerate(HUES.values())]
MIN_BIN_SHARE = 0.01  # of the images; bins with fewer are too noisy to draw


def calibration(
    analysis: PairAnalysis,
    styles: Mapping[str, MethodStyle],
    name: str,
    pair: str,
    methods: Sequence[str],
) -> RenderedFigure | None:
    """Return the reliability diagram over all seeds, with a line for each method, or ``None``."""
    curves = {}
    known = {method: analysis.runs[method] for method in methods if method in analysis.runs}
    for method, runs in known.items():
        bins = np.array([run.reliability for run in runs], dtype=float)  # seeds, bins, 3
        counts = bins[:, :, 0]
        total = counts.sum(axis=0)
        drawn = total >= MIN_BIN_SHARE * total.sum()
        weights = np.where(counts > 0, counts, 0)[:, drawn] / total[drawn]
        values = np.nan_to_num(bins[:, drawn, 1:])
        curves[method] = (weights[:, :, None] * values).sum(axis=0)
    if not curves:
        return None

    def plot(axes: Axes) -> None:
        axes.plot((0, 100), (0, 100), color=GRID, linewidth=1)
        for method, curve in curves.items():
            style = styles[method]
            axes.plot(
                curve[:, 0], curve[:, 1], color=style.colour, linestyle=style.dash,
                marker=style.marker, markersize=3, linewidth=1.2, label=style.label,
            )  # fmt: skip
        axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
        legend_below(axes)

    errors = [
        f"{styles[m].label} {number(np.mean([r.ece for r in runs]))} %" for m, runs in known.items()
    ]
    description = (
        f"Accuracy against confidence for {pair}, in 15 bins over all seeds; a calibrated network "
        "is on the diagonal. Bins with less than 1 % of the images are left out. "
        f"Expected calibration errors: {join_names(errors)}."
    )
    return render_figure(name, "Calibration", description, plot)


def correlations(
    analysis: PairAnalysis,
    styles: Mapping[str, MethodStyle],
    name: str,
    pair: str,
    methods: Sequence[str],
) -> RenderedFigure | None:
    """Return the difference of teacher's and students' class correlations, or ``None``.

    There is a panel for each method. It shows the absolute difference of the Pearson correlations
    between class logits over the test images (Tian et al. 2020, figure 1). Paler panels mean that
    the student's class correlations are closer to the teacher's.
    """
    teacher = analysis.teacher_correlation
    students = {m: analysis.correlations[m] for m in methods if m in analysis.correlations}
    if teacher is None or not students:
        return None
    differences = {m: np.abs(c.astype(float) - teacher) for m, c in students.items()}
    means = {method: float(gap.mean()) for method, gap in differences.items()}
    top = max(0.1, float(np.quantile(np.stack(list(differences.values())), 0.99)))

    def plot(panels: Any) -> None:
        for axes, (method, gap) in _fill(panels, differences.items()):
            image = axes.imshow(gap, cmap="magma_r", vmin=0, vmax=top, interpolation="nearest")
            axes.set_title(f"{styles[method].label}: mean {means[method]:.3f}", fontsize=8)
            _hide_axes(axes)
        bar = axes.figure.colorbar(image, ax=panels, shrink=0.6, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label("absolute difference", fontsize=8)

    texts = [f"{styles[method].label} {mean:.3f}" for method, mean in means.items()]
    description = (
        "Absolute difference between the class correlations of teacher and student for "
        f"{pair}, one seed; paler is closer to the teacher. Means: {join_names(texts)}."
    )
    title = "Class correlations: absolute difference between teacher and student"
    return _render_panels(name, title, description, plot, len(students))


def embeddings(
    analysis: PairAnalysis, styles: Mapping[str, MethodStyle], name: str, pair: str
) -> RenderedFigure | None:
    """Return the t-SNE of penultimate features, with a panel for each network of the analysis.

    The first panel is the teacher's. Returns ``None`` for fewer than two networks.
    """
    shown = {
        styles[network].label if network in styles else network.capitalize(): points
        for network, points in analysis.embeddings.items()
    }
    if len(shown) < 2:
        return None
    labels = analysis.embedding_labels
    names = {label: analysis.classes[label] for label in np.unique(labels)}

    def plot(panels: Any) -> None:
        for axes, (network, points) in _fill(panels, shown.items()):
            for label in names:
                x, y = points[labels == label].T
                axes.scatter(x, y, s=4, color=_class_colour(label), linewidths=0, rasterized=True)
            axes.set_title(network, fontsize=8)
            _hide_axes(axes)
        handles = [
            Line2D([], [], color=_class_colour(label), marker="o", linestyle="", markersize=4,
                   label=class_name)
            for label, class_name in names.items()
        ]  # fmt: skip
        axes.figure.legend(
            handles=handles, loc="outside lower left", ncols=5, fontsize=8, handletextpad=0.1,
            columnspacing=1.0,
        )  # fmt: skip

    description = (
        f"t-SNE of the penultimate features for {pair}, one seed; each colour is a class, and "
        f"distances between clusters have no meaning. Networks: {join_names(list(shown))}. "
        f"Classes: {join_names(list(names.values()))}."
    )
    title = "Penultimate features (t-SNE), colour = class"
    return _render_panels(name, title, description, plot, len(shown))


def simplifier_examples(
    analysis: PairAnalysis, styles: Mapping[str, MethodStyle], name: str, pair: str
) -> RenderedFigure | None:
    """Return the simplifier's effect on single images for the first method, or ``None``.

    Each row has an image with its true class, and the probabilities of the raw teacher's most
    likely classes according to the raw, softened and simplified teacher and the student.
    """
    if not analysis.examples:
        return None
    example = analysis.examples[0]
    count = len(example.labels)
    stages = {
        "raw": (example.raw, INK),
        "softened": (example.softened, CONTROL_COLOUR),
        "simplified": (example.simplified, HUES["orange"][1]),
        "student": (example.student, HUES["blue"][0]),
    }

    def plot(grid: Any) -> None:
        panels = np.atleast_2d(grid)
        panels[0][0].get_gridspec().set_width_ratios((1, 3))
        for row, (picture, label) in enumerate(zip(example.images, example.labels, strict=True)):
            axes = panels[row][0]
            axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(f"true class: {analysis.classes[label]}", fontsize=8)
            _hide_axes(axes)
            top = np.argsort(-example.raw[row], kind="stable")[:5]
            axes = panels[row][1]
            for i, (stage, (values, colour)) in enumerate(stages.items()):
                axes.bar(
                    np.arange(len(top)) + 0.2 * (i - 1.5), 100 * values[row][top], width=0.19,
                    color=colour, label=stage if row == 0 else "_",
                )  # fmt: skip
            axes.set_xticks(range(len(top)), [analysis.classes[c] for c in top], fontsize=7)
            axes.set_ylabel("%")
            axes.grid(axis="x", visible=False)
        panels[-1][1].set_xlabel("classes, sorted by the raw teacher's probability", fontsize=8)
        legend_below(panels[0][1])

    title = f"Effect of the simplifier, {styles[example.method].label}"
    description = (
        f"Probabilities of the raw teacher's five most likely classes for {pair}, seed "
        f"{example.seed}: {plural(count, 'image')} outside the training set, each with its true "
        f"class; softened and simplified at T = {example.temperature:g}, raw and student at T = 1. "
        "The attention is over the batch, so the result also depends on its other images."
    )
    return render_figure(name, title, description, plot, 0.9 + 1.1 * count, (count, 2))


def _class_colour(label: int) -> str:
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _render_panels(
    name: str, title: str, description: str, plot: Any, count: int
) -> RenderedFigure:
    rows = -(-count // PANEL_COLUMNS)
    return render_figure(name, title, description, plot, 0.5 + 2.0 * rows, (rows, PANEL_COLUMNS))


def _fill(panels: Any, items: Any) -> list[tuple[Axes, Any]]:
    """Return the items with their axes, and switch the remaining axes off."""
    all_axes = list(np.atleast_1d(panels).flat)
    contents = list(items)
    for axes in all_axes[len(contents) :]:
        axes.axis("off")
    return list(zip(all_axes, contents, strict=False))


def _hide_axes(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
