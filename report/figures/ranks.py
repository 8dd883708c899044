"""The critical difference diagram of the methods' mean ranks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from report.figures.plotting import CHARACTER
from report.figures.rendered import RenderedFigure
from report.figures.style import INK, WIDTH, render_figure
from report.formats import join_names, number, plural
from report.names import Names
from report.statistics.ranks import Ranking

LEAST_AXIS = 1.4  # inches: the least width of the axis of ranks


def critical_differences(ranking: Ranking | None, names: Names) -> RenderedFigure | None:
    """Return the critical difference diagram of the mean ranks (Demšar 2006), or ``None``.

    A bar joins methods that are not significantly different. The critical difference is drawn to
    the axis's scale. The names stand beside the axis, so no leader crosses them.
    """
    if ranking is None:
        return None
    groups = ranking.cliques()
    labels = {m: f"{names.method(m)} ({number(r)})" for m, r in ranking.ranks.items()}
    half = (len(labels) + 1) // 2
    bottom = -0.35 * len(groups)

    def plot(axes: Axes) -> None:
        left, right = rank_limits(ranking, list(labels.values()))
        axes.set_xlim(left, right)
        axes.set_ylim(bottom - half - 0.4, 2.3)
        _draw_rank_axis(axes, ranking)
        for i, (method, rank) in enumerate(ranking.ranks.items()):
            first = i < half
            level = bottom - 0.6 - (i if first else len(labels) - 1 - i)
            edge = 0.85 if first else len(labels) + 0.15
            axes.plot((rank, rank, edge), (0, level, level), color=INK, linewidth=0.7)
            axes.annotate(
                labels[method], (edge, level), xytext=(-3 if first else 3, 0), fontsize=8,
                textcoords="offset points", ha="right" if first else "left", va="center",
            )  # fmt: skip
        for i, group in enumerate(groups, start=1):
            ends = [ranking.ranks[group[0]] - 0.05, ranking.ranks[group[-1]] + 0.05]
            axes.plot(ends, (-0.35 * i, -0.35 * i), color=INK, linewidth=3)
        axes.axis("off")

    description = (
        f"Mean ranks over {plural(ranking.pairs, 'pair')}, 1 is best; methods joined by a bar "
        f"differ by less than {number(ranking.critical_difference)}, which is not significant. "
        f"Ranks: {join_names(list(labels.values()))}."
    )
    height = 1.2 + 0.24 * (half + 0.35 * len(groups))
    return render_figure("ranks", "Mean ranks over pairs", description, plot, height)


def rank_limits(ranking: Ranking, labels: Sequence[str]) -> tuple[float, float]:
    """Return the limits of the axis of ranks, in ranks, with room for the names at both sides.

    The axis shows all ranks and the whole critical difference, which may be longer.

    Args:
        ranking: the mean ranks.
        labels: the texts beside the axis, best first.
    """
    half = (len(labels) + 1) // 2
    last = max(len(labels), 1 + ranking.critical_difference)
    left = CHARACTER * max(map(len, labels[:half])) + 0.1
    right = CHARACTER * max(map(len, labels[half:]), default=0) + 0.1
    inches = max(WIDTH - 0.1 - left - right, LEAST_AXIS)
    rank = inches / (last - 1)
    names_end = len(labels) + 0.15 + right / rank
    return 0.85 - left / rank, max(names_end, last)


def _draw_rank_axis(axes: Axes, ranking: Ranking) -> None:
    """Draw the axis with a tick for each rank, and the critical difference above it."""
    k = len(ranking.ranks)
    axes.plot((1, k), (0, 0), color=INK, linewidth=1)
    for tick in range(1, k + 1):
        axes.plot((tick, tick), (0, 0.18), color=INK, linewidth=1)
        axes.annotate(str(tick), (tick, 0.3), ha="center", fontsize=8)
    ends = (1, 1 + ranking.critical_difference)
    axes.plot(ends, (1.35, 1.35), color=INK, linewidth=1.5, marker="|", markersize=5)
    axes.annotate(
        f"critical difference {number(ranking.critical_difference)}", (1, 1.6), fontsize=8
    )
