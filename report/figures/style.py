"""The common style of all figures, and their formats: inline SVG, and SVG and PDF files."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from report.figures.method_styles import HUES
from report.figures.rendered import RenderedFigure

# Placeholders for the page's colours, so that a figure follows its light or dark scheme. The dark
# page has a lighter variant of each method's colour.
INK, GRID = "#1b1f24", "#d0d7de"
PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    **{tones[0]: f"var(--{hue})" for hue, tones in HUES.items()},
    **{tones[1]: f"var(--{hue}-light)" for hue, tones in HUES.items()},
}

RC_PARAMS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
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
    "path.simplify_threshold": 0.5,  # points; a curve has more epochs than the page has pixels
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "savefig.facecolor": "none",
    "text.parse_math": False,  # a display name may have a dollar sign
    "svg.fonttype": "path",  # the same on machines without the font
}
WIDTH = 4.6  # inches; all figures have the width of a column of the page, for one size of text
PANEL_COLUMNS = 2  # of a figure with several panels
TITLE_CHARACTERS = 48  # that fit into a line of a figure's title


def render_figure(
    name: str,
    title: str,
    description: str,
    plot: Callable[[Any], None],
    height: float = 3.3,
    panels: tuple[int, int] = (1, 1),
    share_axes: bool = False,
) -> RenderedFigure:
    """Render a figure. Equal data give equal bytes.

    Args:
        name: name of its files, and prefix of its ids within the page.
        title: its title.
        description: a text for readers who cannot see the figure. All readers see its first
            sentence, which is the caption.
        plot: draws into the axes, or into an array (rows, columns) of axes for several panels.
        height: in inches.
        panels: number of rows and columns.
        share_axes: whether all panels have the same limits, with labels at the outer ones only.
    """
    with mpl.rc_context({**RC_PARAMS, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), dpi=150, layout="constrained")
        plot(figure.subplots(*panels, sharex=share_axes, sharey=share_axes))
        lines = textwrap.fill(title, TITLE_CHARACTERS)
        figure.suptitle(lines, x=0.01, ha="left", weight="bold", fontsize=10)
        for part in figure.axes:
            part.tick_params(length=0)
        # Compute the layout once. Otherwise each format computes it again, which is slow.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        svg, pdf = io.StringIO(), io.BytesIO()
        unstamped = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(svg, metadata=unstamped)
        unstamped = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        FigureCanvasPdf(figure).print_pdf(pdf, metadata=unstamped)
    text = svg.getvalue()
    return RenderedFigure(
        name,
        title,
        first_sentence(description),
        inline_svg(text, name, title, description),
        text,
        pdf.getvalue(),
    )


def first_sentence(text: str) -> str:
    """Return a text up to the first full stop that ends a sentence."""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)[0]


def inline_svg(svg: str, name: str, title: str, description: str) -> str:
    """Return an SVG file as an accessible element with unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # An image's id is a hash of its content, so equal panels would have the same id.
    svg = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", svg)
    # One decimal is precise enough, and makes the page half as large as six decimals.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for placeholder, colour in PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    texts = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    svg = svg.replace("<svg ", head, 1)
    end = svg.index(">") + 1
    return svg[:end] + texts + svg[end:]
