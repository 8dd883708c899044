"""The result as a picture: every method's gain over the student alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from report.figures.method_styles import CONTROL_COLOUR, MethodStyle
from report.figures.rendered import RenderedFigure
from report.figures.style import INK, render_figure
from report.formats import interval, join_names, plural, signed
from report.frames.averages import average_gains
from report.frames.cells import CONTROL, CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import Difference

MAX_PANELS = 4  # with more pairs, one figure shows the mean over pairs
ROW_HEIGHT = 0.27  # inches
LONGEST_INTERVAL = 0.75  # in spans of the means; longer intervals end in an arrow


@dataclass(frozen=True)
class GainRow:
    """One method's gain over the student alone, in points of top-1.

    Attributes:
        gain: the mean gain with its standard error, paired by seed.
        published: the published gain over the published student alone, or ``None``.
        by_pair: the gain on each pair, for a mean over pairs; else empty.
        with_simplifier: whether the method has a simplifier; rows of a kind stand together.
    """

    method: str
    gain: Difference
    published: float | None = None
    by_pair: tuple[float, ...] = ()
    with_simplifier: bool = False


@dataclass(frozen=True)
class GainPanel:
    """The rows of one figure, in the order of the sheet.

    Attributes:
        teacher: the teacher's top-1 minus that of the student alone, or ``None``.
    """

    name: str
    title: str
    rows: tuple[GainRow, ...]
    teacher: float | None = None
    num_pairs: int = 1


def gain_figures(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    styles: Mapping[str, MethodStyle],
    names: Names,
) -> list[partial[RenderedFigure]]:
    """Return the jobs that draw the gains.

    A figure for each pair, with equal axes; or one figure of the mean over pairs if there are more
    than `MAX_PANELS`. Empty if no method can be compared with the student alone.
    """
    panels = [panel for pair in pairs if (panel := _pair_panel(pair, names)).rows]
    if len(pairs) > MAX_PANELS:
        panels = [_average_panel(pairs, methods)]
        panels = [panel for panel in panels if panel.rows]
    if not panels:
        return []
    limits = _limits(panels)
    return [partial(draw_gains, panel, styles, limits) for panel in panels]


def draw_gains(
    panel: GainPanel, styles: Mapping[str, MethodStyle], limits: tuple[float, float]
) -> RenderedFigure:
    """Draw one panel: a row for each method with its mean, interval and published gain."""
    levels = _levels(panel.rows)

    def plot(axes: Axes) -> None:
        axes.set_xlim(limits)
        axes.set_ylim(levels[-1] + 0.6, -1.15)
        _draw_references(axes, panel.teacher)
        for row, level in zip(panel.rows, levels, strict=True):
            _draw_row(axes, row, styles[row.method], level, limits)
        axes.set_yticks(levels, [_label(row, panel, styles) for row in panel.rows])
        axes.set_xlabel("gain over the student alone (points of top-1)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        _add_legend(axes, panel)

    height = 1.25 + ROW_HEIGHT * (levels[-1] + 1)
    return render_figure(panel.name, panel.title, _description(panel, styles), plot, height)


def _pair_panel(pair: PairFinding, names: Names) -> GainPanel:
    control = pair.cell(CONTROL)
    rows = tuple(
        GainRow(
            cell.method,
            cell.gain,
            _published_gain(cell, control),
            with_simplifier=cell.has_simplifier,
        )
        for cell in pair.cells
        if cell.gain is not None
    )
    teacher = None
    if pair.teacher.top1 is not None and control is not None and control.last.mean is not None:
        teacher = pair.teacher.top1 - control.last.mean
    return GainPanel(f"{pair.teacher.name}--{pair.student}-gains", names.pair(pair), rows, teacher)


def _average_panel(pairs: Sequence[PairFinding], methods: Sequence[str]) -> GainPanel:
    by_method = {average.a: average for average in average_gains(pairs, methods)}
    rows = []
    for method in methods:
        if (average := by_method.get(method)) is None:
            continue
        used = [pair for pair in pairs if pair.pair in average.pairs]
        cells = [(pair.cell(method), pair.cell(CONTROL)) for pair in used]
        published = [_published_gain(cell, control) for cell, control in cells]
        rows.append(
            GainRow(
                method,
                average.difference,
                None if None in published else sum(published) / len(published),
                tuple(cell.gain.mean for cell, _ in cells),
                any(cell.has_simplifier for cell, _ in cells),
            )
        )
    covered = max((len(row.by_pair) for row in rows), default=0)
    return GainPanel("gains", f"Mean over {plural(covered, 'pair')}", tuple(rows), None, covered)


def _published_gain(cell: CellFinding, control: CellFinding | None) -> float | None:
    """Return the published gain over the published student alone.

    ``None`` if one of the two values is not published, or if the recipe is not the published one.
    """
    if cell.verdict is None or control is None or control.published is None:
        return None
    return cell.verdict.published.top1 - control.published.top1


def _limits(panels: Sequence[GainPanel]) -> tuple[float, float]:
    """Return the common limits of the x axis: all means, and intervals of a sensible length."""
    points = [0.0, *(panel.teacher for panel in panels if panel.teacher is not None)]
    ends: list[float] = []
    for row in (row for panel in panels for row in panel.rows):
        points += [row.gain.mean, *row.by_pair]
        points += [] if row.published is None else [row.published]
        ends += row.gain.interval() or ()
    span = max(max(points) - min(points), 0.5)
    low = max(min([*points, *ends]), min(points) - LONGEST_INTERVAL * span)
    high = min(max([*points, *ends]), max(points) + LONGEST_INTERVAL * span)
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _levels(rows: Sequence[GainRow]) -> list[float]:
    """Return the rows' positions, with a gap where methods with a simplifier begin or end."""
    levels, gaps = [], 0.0
    for i, row in enumerate(rows):
        gaps += 0.5 * (i > 0 and row.with_simplifier != rows[i - 1].with_simplifier)
        levels.append(i + gaps)
    return levels


def _label(row: GainRow, panel: GainPanel, styles: Mapping[str, MethodStyle]) -> str:
    """Return the row's name, with its number of pairs if it has fewer than other rows."""
    pairs, label = len(row.by_pair), styles[row.method].label
    return f"{label}\n({plural(pairs, 'pair')})" if 0 < pairs < panel.num_pairs else label


def _draw_references(axes: Axes, teacher: float | None) -> None:
    """Draw a line at the student alone, and one at the teacher, with their names above."""
    axes.axvline(0, color=INK, linewidth=0.9)
    right = teacher is None or teacher < 0
    axes.annotate(
        "student alone", (0, -0.75), xytext=(3 if right else -3, 0), textcoords="offset points",
        ha="left" if right else "right", va="center", fontsize=7.5,
    )  # fmt: skip
    if teacher is not None:
        axes.axvline(teacher, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(
            f"teacher {signed(teacher)}", (teacher, -0.75), xytext=(-3 if right else 3, 0),
            textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7.5,
        )  # fmt: skip


def _draw_row(
    axes: Axes, row: GainRow, style: MethodStyle, level: float, limits: tuple[float, float]
) -> None:
    low, high = limits
    if bounds := row.gain.interval():
        ends = [max(bounds[0], low), min(bounds[1], high)]
        axes.plot(ends, (level, level), color=style.colour, linewidth=1.6, solid_capstyle="butt")
        for beyond, end, marker in ((bounds[0] < low, low, "<"), (bounds[1] > high, high, ">")):
            if beyond:
                axes.plot(end, level, marker, color=style.colour, markersize=5, clip_on=False)
    axes.plot(
        row.by_pair, [level + 0.28] * len(row.by_pair), "o", color=style.colour, markersize=2.5,
        markeredgewidth=0, alpha=0.6,
    )  # fmt: skip
    face = "none" if bounds is None else style.colour
    axes.plot(
        row.gain.mean, level, style.marker, color=style.colour, markerfacecolor=face, markersize=6.5
    )
    if row.published is not None:
        axes.plot(
            row.published, level - 0.3, "D", color=INK, markerfacecolor="none", markersize=4.5,
            markeredgewidth=1.0,
        )  # fmt: skip
    axes.text(
        1.02, level, signed(row.gain.mean), fontsize=8.5, va="center",
        transform=blended_transform_factory(axes.transAxes, axes.transData),
    )  # fmt: skip


def _add_legend(axes: Axes, panel: GainPanel) -> None:
    """Explain the marks that the panel has."""
    marks = {"color": CONTROL_COLOUR, "marker": "o", "markersize": 5}
    handles = []
    if any(row.gain.se is not None for row in panel.rows):
        handles.append(Line2D([], [], label="mean, 95 % interval", **marks))
    if any(row.gain.se is None for row in panel.rows):
        hollow = {**marks, "linestyle": "none", "markerfacecolor": "none"}
        handles.append(Line2D([], [], label="one seed", **hollow))
    if panel.num_pairs > 1:
        small = {**marks, "linestyle": "none", "markersize": 2.5}
        handles.append(Line2D([], [], label="a pair", **small))
    if any(row.published is not None for row in panel.rows):
        diamond = {"color": INK, "markerfacecolor": "none", "linestyle": "none", "markersize": 5}
        handles.append(Line2D([], [], label="published", marker="D", **diamond))
    axes.figure.legend(
        handles=handles, loc="outside lower left", ncols=4, fontsize=8, handlelength=2.0,
        columnspacing=1.2,
    )  # fmt: skip


def _description(panel: GainPanel, styles: Mapping[str, MethodStyle]) -> str:
    texts = []
    for row in panel.rows:
        published = "" if row.published is None else f", published {signed(row.published)}"
        fewer = ""
        if panel.num_pairs > 1 and len(row.by_pair) < panel.num_pairs:
            fewer = f", over {plural(len(row.by_pair), 'pair')}"
        basis = f"{interval(row.gain)}{published}{fewer}"
        texts.append(f"{styles[row.method].label} {signed(row.gain.mean)} ({basis})")
    teacher = ""
    if panel.teacher is not None:
        teacher = f" The teacher: {signed(panel.teacher)}."
    return (
        "Gain over the student alone in points of top-1 at the last epoch, with its 95 % interval "
        f"over seeds, paired by seed. {panel.title}: {join_names(texts)}.{teacher}"
    )
