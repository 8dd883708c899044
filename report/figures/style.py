"""The common style of all figures, and their formats: inline SVG, and SVG and PDF files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Placeholders for the page's colours, so that a figure follows its light or dark scheme.
INK, GRID = "#1b1f24", "#d0d7de"
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"}

RC_PARAMS: dict[str, Any] = {
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
    "path.simplify_threshold": 0.5,  # points; a curve has more epochs than the page has pixels
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
VERDICT_COLOURS = {
    "reproduced": "#029e73", "higher": "#0173b2", "lower": "#d55e00", "inconclusive": "#8c959f",
    "not run": "#d0d7de",
}  # fmt: skip
COLUMN_WIDTH = 6.0  # inches; a wider figure takes both columns of the page
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))


@dataclass(frozen=True)
class MethodStyle:
    """The colour and dash pattern of a method in every figure."""

    colour: str
    dash: Any


def method_styles(methods: Sequence[str], control: str) -> dict[str, MethodStyle]:
    """Return each method's style.

    The colours are colour-blind safe. The control is grey. Dash patterns distinguish methods if
    there are more methods than colours.
    """
    palette = sns.color_palette("colorblind").as_hex()
    palette.remove("#949494")  # close to the control's grey
    others = [method for method in methods if method != control]
    styles = {
        method: MethodStyle(palette[i % len(palette)], DASHES[i // len(palette) % len(DASHES)])
        for i, method in enumerate(others)
    }
    return {method: styles.get(method, MethodStyle(CONTROL_COLOUR, "-")) for method in methods}


@dataclass(frozen=True)
class RenderedFigure:
    """A figure for the page and as files.

    Attributes:
        name: the name of its files; unique within the page.
        title: its title.
        inline: an accessible SVG element with the page's colours.
        svg: the content of its SVG file.
        pdf: the content of its PDF file.
        wide: whether it takes the whole width of the page.
    """

    name: str
    title: str
    inline: str
    svg: str
    pdf: bytes
    wide: bool


def render_figure(
    name: str,
    title: str,
    description: str,
    plot: Callable[[Any], None],
    size: tuple[float, float] = (4.6, 3.3),
    panels: tuple[int, int] = (1, 1),
) -> RenderedFigure:
    """Render a figure. Equal data give equal bytes.

    Args:
        name: name of its files, and prefix of its ids within the page.
        title: its title.
        description: a text for readers who cannot see the figure.
        plot: draws into the axes, or into an array (rows, columns) of axes for several panels.
        size: width and height in inches.
        panels: number of rows and columns.
    """
    with mpl.rc_context({**RC_PARAMS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(*panels)
        plot(axes)
        if panels == (1, 1):
            axes.set_title(title)
        else:
            figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=10)
        for part in figure.axes:
            part.tick_params(length=0)
        # Compute the layout once. Otherwise each format computes it again, which is slow.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        svg, pdf = io.StringIO(), io.BytesIO()
        unstamped = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(svg, metadata=unstamped)
        unstamped = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        FigureCanvasPdf(figure).print_pdf(pdf, metadata=unstamped)
    text = svg.getvalue()
    inline = inline_svg(text, name, title, description)
    return RenderedFigure(name, title, inline, text, pdf.getvalue(), wide=size[0] > COLUMN_WIDTH)


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
