"""A figure that is ready for the page and for files. Imports no drawing library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderedFigure:
    """A figure for the page and as files.

    Attributes:
        name: the name of its files; unique within the page.
        title: its title.
        caption: a sentence that says what it shows.
        inline: an accessible SVG element with the page's colours.
        svg: the content of its SVG file.
        pdf: the content of its PDF file.
    """

    name: str
    title: str
    caption: str
    inline: str
    svg: str
    pdf: bytes
