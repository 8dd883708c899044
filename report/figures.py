"""The figures, one panel each, from the tidy frames."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from report.formats import listing, number, plural
from report.look import CONTROL_COLOUR, INK, Look, draw

RUNS = "Every line is one run."
BAND = "Lines are means over seeds; bands are one sample standard deviation to either side."
TEACHER_DASHES = {"raw": (0, (1, 1)), "softened": (0, (4, 2))}


def learning_curves(epochs: pd.DataFrame, looks: Mapping[str, Look], name: str, split: str) -> str:
    """Return one pair's top-1 accuracy against the epoch, a line a method."""
    pair, methods = _pair_and_methods(epochs)

    def plot(axes: Axes) -> None:
        for method in methods:
            _line(axes, epochs[epochs["method"] == method], "test_top1", looks[method], method)
        _finish(axes, f"top-1 accuracy, {split} images (%)", len(methods))

    ends = epochs[epochs["epoch"] == epochs["epoch"].max()].groupby("method", sort=False)
    finals = [f"{method} {number(value)} %" for method, value in ends["test_top1"].mean().items()]
    description = (
        f"Learning curves of {listing(methods)} for {pair}. {BAND} "
        f"Means at the last epoch: {listing(finals)}."
    )
    return draw(name, pair, description, plot)


def last_epoch_dots(runs: pd.DataFrame, looks: Mapping[str, Look], name: str, split: str) -> str:
    """Return one pair's last-epoch accuracies: a dot a seed, and a bar at each method's mean."""
    done = runs[runs["outcome"] == "done"]
    pair, methods = _pair_and_methods(done)
    colours = {method: looks[method].colour for method in methods}

    def plot(axes: Axes) -> None:
        sns.stripplot(
            done, x="last_top1", y="method", order=methods, hue="method", palette=colours,
            size=6.5, alpha=0.75, jitter=False, legend=False, ax=axes,
        )  # fmt: skip
        for place, method in enumerate(methods):
            mean = done.loc[done["method"] == method, "last_top1"].mean()
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=INK, linewidth=1.8)
        axes.set(xlabel=f"top-1 accuracy at the last epoch, {split} images (%)", ylabel="")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    means = done.groupby("method", sort=False)["last_top1"].agg(["mean", "count"])
    said = [
        f"{method} {number(row['mean'])} % ({plural(int(row['count']), 'seed')})"
        for method, row in means.iterrows()
    ]
    description = (
        f"Last-epoch accuracy for {pair}: a dot is a seed, a bar the mean. Means: {listing(said)}."
    )
    return draw(name, pair, description, plot, size=(4.6, 1.0 + 0.32 * len(methods)))


def diagnostics(
    epochs: pd.DataFrame, looks: Mapping[str, Look], name: str, classes: int | None
) -> list[str]:
    """Return one pair's panels of what SKD's simplifier does; none where nothing was watched."""
    columns = [column for column in epochs.columns if column.startswith("diagnostic_")]
    watched = epochs.dropna(subset=columns, how="all") if columns else epochs.iloc[:0]
    if watched.empty:
        return []
    panels = []
    if "diagnostic_entropy_simplified" in watched:
        panels.append(_entropy(watched, looks, f"{name}-entropy", classes))
    for key, title, label, meaning in (
        (
            "top1_simplified",
            "Is the simplified teacher still right?",
            "top-1 of the simplified teacher (%)",
            "Accuracy of the simplified teacher on its training images, in percent.",
        ),
        (
            "kl_softened_simplified",
            "How far from the softened teacher?",
            "KL(softened ‖ simplified) (nats)",
            "Divergence of the simplified teacher from the softened one, in nats.",
        ),
        (
            "kl_simplified_student",
            "How far from the student?",
            "KL(simplified ‖ student) (nats)",
            "Divergence of the student from the simplified teacher, in nats.",
        ),
    ):
        if f"diagnostic_{key}" in watched:
            panels.append(_watched(watched, key, looks, f"{name}-{key}", (title, label, meaning)))
    return panels


def _watched(
    epochs: pd.DataFrame,
    key: str,
    looks: Mapping[str, Look],
    name: str,
    words: tuple[str, str, str],
) -> str:
    title, label, meaning = words
    pair, methods = _pair_and_methods(epochs)

    def plot(axes: Axes) -> None:
        if key == "top1_simplified" and "diagnostic_top1_raw" in epochs:
            raw = Look(CONTROL_COLOUR, TEACHER_DASHES["raw"])
            _line(axes, epochs, "diagnostic_top1_raw", raw, "raw teacher")
        for method in methods:
            data = epochs[epochs["method"] == method]
            _each_run(axes, data, f"diagnostic_{key}", looks[method], method)
        # A divergence of rounding errors must not fill the panel.
        axes.set_ylim(0, 105 if key == "top1_simplified" else max(axes.get_ylim()[1], 0.01))
        _finish(axes, label, len(methods) + 1)

    return draw(name, title, f"{meaning} {pair}: {listing(methods)}. {RUNS}", plot)


def _entropy(
    epochs: pd.DataFrame, looks: Mapping[str, Look], name: str, classes: int | None
) -> str:
    pair, methods = _pair_and_methods(epochs)

    def plot(axes: Axes) -> None:
        for stage, dash in TEACHER_DASHES.items():
            if f"diagnostic_entropy_{stage}" in epochs:
                look = Look(CONTROL_COLOUR, dash)
                _line(axes, epochs, f"diagnostic_entropy_{stage}", look, f"{stage} teacher")
        for method in methods:
            data = epochs[epochs["method"] == method]
            label = f"simplified, {method}"
            _each_run(axes, data, "diagnostic_entropy_simplified", looks[method], label)
        if classes:
            axes.axhline(math.log(classes), color=INK, linewidth=1)
            axes.annotate(
                f"log C = {math.log(classes):.2f}: no information left",
                (0.99, math.log(classes)), xycoords=("axes fraction", "data"),
                xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8,
            )  # fmt: skip
            axes.set_ylim(0, 1.12 * math.log(classes))
        _finish(axes, "entropy of the teacher (nats)", len(methods) + 2)

    limit = f" The upper limit is log C = {math.log(classes):.2f}." if classes else ""
    description = (
        f"Entropy of the raw, softened and simplified teacher for {pair}: {listing(methods)}."
        f"{limit} {RUNS}"
    )
    return draw(name, "How much does the teacher still say?", description, plot)


def _line(axes: Axes, data: pd.DataFrame, column: str, look: Look, label: str) -> None:
    """Draw mean and band over seeds."""
    sns.lineplot(
        data, x="epoch", y=column, errorbar="sd", color=look.colour, linestyle=look.dash,
        label=label, err_kws={"alpha": 0.18, "linewidth": 0}, legend=False, ax=axes,
    )  # fmt: skip


def _each_run(axes: Axes, data: pd.DataFrame, column: str, look: Look, label: str) -> None:
    """Draw a line a run: a mean would hide the one seed that collapsed."""
    for place, (_, run) in enumerate(data.groupby("seed")):
        axes.plot(
            run["epoch"], run[column], color=look.colour, linestyle=look.dash, alpha=0.85,
            linewidth=1.2, label="_" if place else label,
        )  # fmt: skip


def _finish(axes: Axes, label: str, entries: int) -> None:
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles, labels, loc="outside lower left", ncols=min(entries, 4 if entries > 4 else 2),
        fontsize=8, handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip


def _pair_and_methods(frame: pd.DataFrame) -> tuple[str, list[str]]:
    return frame["pair"].iloc[0], list(frame["method"].unique())
