"""The figure of the simplifier's diagnostics by epoch: entropies, accuracy, divergences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from report.figures.method_styles import CONTROL_COLOUR, MethodStyle
from report.figures.plotting import (
    label_epochs,
    legend_below,
    methods_of,
    plot_each_run,
    plot_mean_and_sd,
)
from report.figures.rendered import RenderedFigure
from report.figures.style import INK, render_figure
from report.formats import join_names
from report.frames.study_frames import DIAGNOSTIC_PREFIX, UNCHANGED_BELOW, diagnostic_epochs

TEACHER_STYLES = {
    "raw": MethodStyle(CONTROL_COLOUR, (0, (1, 1)), label="raw teacher"),
    "softened": MethodStyle(CONTROL_COLOUR, (0, (4, 2)), label="softened teacher"),
}
# Title and axis label of each diagnostic's panel.
PANELS = {
    "entropy_simplified": ("Entropy of the teacher", "entropy (nats)"),
    "top1_simplified": ("Simplified teacher's accuracy", "top-1, training images (%)"),
    "kl_softened_simplified": ("Distance from softened teacher", "KL(softened ‖ simplified)"),
    "kl_simplified_student": ("Distance from the student", "KL(simplified ‖ student)"),
}


def simplifier_diagnostics(
    epochs: pd.DataFrame, styles: Mapping[str, MethodStyle], name: str, pair: str, classes: int
) -> RenderedFigure | None:
    """Return one pair's panels of the simplifier's diagnostics, or ``None`` without any."""
    data = diagnostic_epochs(epochs)
    if data.empty:
        return None
    methods = methods_of(data)
    by_method = {method: data[data["method"] == method] for method in methods}
    keys = [key for key in PANELS if f"{DIAGNOSTIC_PREFIX}{key}" in data]

    def plot(panels: Any) -> None:
        for axes, key in zip(panels.flat, keys, strict=False):
            column = f"{DIAGNOSTIC_PREFIX}{key}"
            title, label = PANELS[key]
            axes.set_title(title, fontsize=8)
            if key == "kl_softened_simplified" and data[column].max() < UNCHANGED_BELOW:
                _write_no_distance(axes)
                continue
            for stage, style in TEACHER_STYLES.items():
                teacher = f"{DIAGNOSTIC_PREFIX}{key.replace('simplified', stage)}"
                if key in ("entropy_simplified", "top1_simplified") and teacher in data:
                    plot_mean_and_sd(axes, data, teacher, style)
            for method, runs in by_method.items():
                plot_each_run(axes, runs, column, styles[method])
            label_epochs(axes, label, ticks=4)
            axes.yaxis.label.set_size(8)
            _set_limits(axes, key, classes)
        for axes in list(panels.flat)[len(keys) :]:
            axes.axis("off")
        legend_below(panels.flat[0])

    labels = [styles[method].label for method in methods]
    description = (
        f"The simplified teacher for {pair}: each coloured line is one run, the grey lines are the "
        "teacher before the simplifier. The panels show the entropy of the raw, softened and "
        "simplified teacher, the accuracy of the simplified teacher on its training images, and "
        f"divergences in nats. Methods: {join_names(labels)}. The maximum of the entropy is "
        f"log C = {math.log(classes):.2f}."
    )
    return render_figure(name, "Inside the simplifier", description, plot, 4.9, (2, 2))


def _write_no_distance(axes: Axes) -> None:
    """Write that there is no distance, in place of curves of rounding errors."""
    axes.axis("off")
    text = f"KL(softened ‖ simplified) is\nbelow {UNCHANGED_BELOW:g} nats in all runs"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8)


def _set_limits(axes: Axes, key: str, classes: int) -> None:
    if key == "entropy_simplified":
        limit = math.log(classes)
        axes.axhline(limit, color=INK, linewidth=1)
        axes.annotate(
            f"no information: log C = {limit:.2f}",
            (0.99, limit), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", ha="right", fontsize=6.5,
        )  # fmt: skip
        axes.set_ylim(0, 1.14 * limit)
    elif key == "top1_simplified":
        axes.set_ylim(0, 105)
    else:  # divergences that are only rounding errors must not fill the panel
        axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))
