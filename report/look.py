"""One look for all figures, and their form: SVG that stands inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins for the page's own colours, so that a figure follows its light or dark scheme.
INK, GRID = "#1b1f24", "#d0d7de"
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"}

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",  # the same on machines without the font
}
CONTROL_COLOUR = "#8c959f"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure."""

    colour: str
    dash: Any


def looks(methods: Sequence[str], control: str) -> dict[str, Look]:
    """Return each method's look: colour-blind safe, grey for the control, dashes past nine."""
    palette = sns.color_palette("colorblind").as_hex()
    palette.remove("#949494")  # the control's
    others = [method for method in methods if method != control]
    found = {
        method: Look(palette[i % len(palette)], DASHES[i // len(palette) % len(DASHES)])
        for i, method in enumerate(others)
    }
    return {method: found.get(method, Look(CONTROL_COLOUR, "-")) for method in methods}


def draw(
    name: str,
    title: str,
    description: str,
    plot: Callable[[Axes], None],
    size: tuple[float, float] = (4.6, 3.3),
) -> str:
    """Return a figure of one panel as inline SVG; the same data give the same text.

    Args:
        name: makes the figure's ids its own within the page.
        title: stands above the panel.
        description: what a reader who cannot see the figure is told.
        plot: draws into the panel.
        size: width and height in inches.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        axes.set_title(title)
        axes.tick_params(length=0)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=empty)
    return inline(buffer.getvalue(), name, title, description)


def inline(svg: str, name: str, title: str, description: str) -> str:
    """Return a whole SVG file as an accessible element whose ids are its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    words = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    svg = svg.replace("<svg ", head, 1)
    end = svg.index(">") + 1
    return svg[:end] + words + svg[end:]
