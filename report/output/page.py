"""The report as one HTML page."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from report import formats
from report.figures.gallery import Gallery
from report.findings import Findings
from report.frames.outcomes import failed_runs, outcome_counts, outcome_phrase
from report.output import protocol
from report.output.environment import distinct_record_values
from report.output.run_links import cell_details
from report.output.typography import unbroken_html
from report.tables.csv_text import table_csv
from report.tables.latex import table_latex
from report.tables.markdown import table_markdown
from report.tables.table import ReportTable
from skd.store.collapse import INFORMATION_KEPT, LABELS_KEPT
from skd.study.published import differences_from_published

MAX_ROWS_TO_COPY = 300  # of a table whose texts to copy are in the page
FILTERS = ["number", "count", "duration", "plural", "absent", "value_text", "join_names"]


def render_page(findings: Findings, gallery: Gallery) -> str:
    """Return the page. All data are escaped; only the report's own SVG figures are not."""
    environment = Environment(
        loader=PackageLoader("report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formats, name) for name in FILTERS}
    environment.filters |= {
        "records": lambda frame: frame.to_dict("records"),
        "inline": lambda drawing: Markup(drawing.inline),
        "copies": table_copies,
    }
    page = environment.get_template("report.html.j2").render(template_context(findings, gallery))
    return unbroken_html(page)


def table_copies(table: ReportTable) -> list[tuple[str, str, str]]:
    """Return a table's formats, each as its name, the suffix of its file, and the text to copy.

    The text of a very long table is empty, so that the page stays small.
    """
    short = len(table.rows) <= MAX_ROWS_TO_COPY
    return [
        ("Markdown", "md", table_markdown(table) if short else ""),
        ("LaTeX", "tex", table_latex(table) if short else ""),
        ("CSV", "csv", table_csv(table) if short else ""),
    ]


def template_context(findings: Findings, gallery: Gallery) -> dict[str, Any]:
    """Return the data of the page's templates."""
    expansion, frames = findings.expansion, findings.frames
    counts = outcome_counts(frames)
    recipe_differences = differences_from_published(expansion.dataset, expansion.recipe)
    has_verdicts = any(cell.verdict for pair in findings.pairs for cell in pair.cells)
    unlike_published = ""
    if findings.published and not has_verdicts:
        unlike_published = protocol.recipe_changes_text(recipe_differences)
    return {
        "expansion": expansion,
        "findings": findings,
        "tables": findings.tables,
        "gallery": gallery,
        "headline": findings.answer,
        "doubts": findings.doubts,
        "counts": counts,
        "outcomes": outcome_phrase(counts),
        "has_verdicts": has_verdicts,
        "unlike_published": unlike_published,
        "failures": failed_runs(frames),
        "run_states": frames.run_states,
        "cells": cell_details(findings),
        "recipe": protocol.recipe_text(expansion.recipe),
        "recipe_exceptions": protocol.recipe_exceptions(expansion),
        "dataset": protocol.dataset_text(expansion.dataset),
        "methods": protocol.method_texts(expansion),
        "assumptions": protocol.assumptions(findings),
        "environment": distinct_record_values(frames, "environment"),
        "execution": distinct_record_values(frames, "execution"),
        "problems": (*findings.problems, *gallery.problems),
        "with_simplifier": any(cell.has_simplifier for p in findings.pairs for cell in p.cells),
        "labels_kept": LABELS_KEPT,
        "information_kept": INFORMATION_KEPT,
    }
