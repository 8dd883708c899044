"""Tables as LaTeX with booktabs: fragments to include, and a complete document."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from report.tables.table import ReportTable, TableEntry

MAX_SMALL_COLUMNS = 9  # a longtable, which cannot be shrunk, with more columns has a tiny font
MAX_FLOAT_ROWS = 30  # a table with more rows is a longtable, which can be split over pages
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[landscape,margin=1.5cm]{geometry}
\usepackage{booktabs,float,graphicx,longtable}
\setlength{\LTcapwidth}{\linewidth}
\setlength{\belowcaptionskip}{4pt}
\setlength{\LTleft}{\fill}\setlength{\LTright}{\fill}
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "*": r"{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "σ": r"$\sigma$",
    "²": r"$^2$",
    "‖": r"$\Vert$",
    "“": "``",
    "”": "''",
    "’": "'",
    "…": r"\dots{}",
    "†": r"$\dagger$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "½": "1/2",
    "÷": r"$\div$",
    "\u202f": r"\,",
    "\u00a0": "~",
}


_BLANKS = re.compile(r"[ \t\r\n]+")  # no-break spaces stay


def escape_latex(text: str) -> str:
    """Return text as LaTeX.

    A letter that the default fonts do not have loses its accent or becomes ``?``.
    """
    return "".join(_character(character) for character in _BLANKS.sub(" ", text).strip(" "))


def table_latex(table: ReportTable, place: str = "tbp") -> str:
    """Return a table as a fragment. It needs the packages booktabs, graphicx and longtable.

    Args:
        table: the table.
        place: where LaTeX may put it; ``H`` of the package float: here. A long table does not
            float.
    """
    head = " & ".join(_header(column.title) for column in table.columns) + r" \\"
    is_long = len(table.rows) > MAX_FLOAT_ROWS
    size = "tiny" if is_long and len(table.columns) > MAX_SMALL_COLUMNS else "scriptsize"
    body = _body(table, size)
    caption = rf"\caption{{{escape_latex(table.title)}}}\label{{tab:{table.key}}}"
    note = escape_latex(table.caption)
    if is_long:
        lines = [
            rf"{{\{size}\setlength{{\tabcolsep}}{{2pt}}",
            rf"\begin{{longtable}}{{{_alignment(table)}}}",
            caption + r"\\",
            r"\toprule", head, r"\midrule", r"\endfirsthead",
            r"\toprule", head, r"\midrule", r"\endhead",
            r"\bottomrule", r"\endlastfoot",
            *body,
            r"\end{longtable}",
            rf"\noindent\scriptsize {note}\par}}",
        ]  # fmt: skip
    else:
        # Shrink the table to the width of the text, but never enlarge it.
        width = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
        lines = [
            rf"\begin{{table}}[{place}]", r"\centering\footnotesize" if table.narrow
            else r"\centering\small", caption,
            rf"\resizebox{{{width}}}{{!}}{{%",
            rf"\begin{{tabular}}{{{_alignment(table)}}}",
            r"\toprule", head, r"\midrule",
            *body,
            r"\bottomrule", r"\end{tabular}}",
            rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {note}}}",
            r"\end{table}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def latex_document(title: str, sentences: Sequence[str], tables: Sequence[ReportTable]) -> str:
    """Return a complete document with the report's headline and all tables, one after another."""
    parts = [
        PREAMBLE,
        rf"\title{{{escape_latex(title)}}}\date{{}}",
        r"\begin{document}\maketitle",
        "\n\n".join(escape_latex(sentence) for sentence in sentences),
        *(table_latex(table, place="H") for table in tables),
        r"\end{document}",
    ]
    return "\n\n".join(parts) + "\n"


def _alignment(table: ReportTable) -> str:
    """Return the columns of a tabular; more space separates groups of columns."""
    return "".join(
        (r"@{\hspace{2em}}" if column.begins_group else "") + ("r" if column.number else "l")
        for column in table.columns
    )


def _body(table: ReportTable, detail_size: str) -> list[str]:
    lines = []
    for place, row in enumerate(table.rows):
        lines += [r"\midrule"] if place in table.groups else []
        lines += _row(row, table.detailed, detail_size)
    return lines


def _row(row: Sequence[TableEntry], detailed: bool, detail_size: str) -> list[str]:
    lines = [" & ".join(_entry(entry) for entry in row) + r" \\"]
    if detailed and any(entry.detail for entry in row):
        small = [
            rf"{{\{detail_size} {escape_latex(entry.detail)}}}" if entry.detail else ""
            for entry in row
        ]
        lines.append(" & ".join(small) + r" \\[2pt]")
    return lines


def _entry(entry: TableEntry) -> str:
    text = escape_latex(entry.flat)
    return rf"\textbf{{{text}}}" if "best" in entry.tone.split() else text


def _header(title: str) -> str:
    lines = [escape_latex(line) for line in title.split("\n")]
    stacked = r"\\".join(lines)
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if 0x20 <= ord(character) < 0x7F or (
        0xC0 <= ord(character) < 0x100 and character not in "ÐÞðþ"
    ):
        return character
    plain = unicodedata.normalize("NFD", character).encode("ascii", "ignore").decode()
    if not plain.isprintable():
        return "?"
    return "".join(SPECIAL.get(letter, letter) for letter in plain) or "?"
