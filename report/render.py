"""Writes a study's report: ``results/<study>/report/``, one page that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from report import figures, formats, markdown, protocol, tables
from report.analysis import analysis_table, read_analysis
from report.frame import WHOLE_NUMBERS, Frames, build_frames
from report.headline import headline
from report.literature import published_values
from report.look import looks
from report.plan import plan_and_reality, plan_markdown, plan_sentence, wall_sentence
from skd.files import write_atomically
from skd.spec import Recipe
from skd.store import Store
from skd.study import Expansion

FILTERS = [
    "number",
    "signed",
    "spread",
    "interval",
    "count",
    "mebibytes",
    "duration",
    "plural",
    "listing",
    "absent",
    "value_text",
]


def render(expansion: Expansion, results: Path) -> Path:
    """Write page, Markdown and CSV files of whatever the store holds now; return the page's path.

    Raises:
        PublishedError: the file of published values cannot be read.
    """
    frames = build_frames(expansion, Store(results))
    context = page_context(expansion, frames, results)
    folder = results / expansion.study / "report"
    text = markdown.markdown(
        expansion.title,
        context["headline"],
        context["tables"],
        evaluated=expansion.dataset.split,
        published=bool(context["published"]),
    )
    if context["plan"]:
        text += f"\n{plan_markdown(context['plan'])}"
    files = {
        "runs.csv": frames.runs.astype(WHOLE_NUMBERS).to_csv(index=False),
        "epochs.csv": frames.epochs.to_csv(index=False),
        "results.md": text,
        "index.html": html(context),
    }
    for name, content in files.items():
        write_atomically(folder / name, content.encode())
    return folder / "index.html"


def page_context(expansion: Expansion, frames: Frames, results: Path) -> dict[str, Any]:
    """Return all that the page says, as data."""
    published = published_values(expansion.dataset)
    analysis, analysis_problem = read_analysis(results / expansion.study / "analysis.json")
    plan, plan_problem = plan_and_reality(expansion, frames, results)
    counts = tables.outcome_counts(frames)
    return {
        "expansion": expansion,
        "runs": frames.runs,
        "teachers": frames.teachers,
        "split": expansion.dataset.split,
        "headline": headline(frames),
        "counts": counts,
        "outcomes": tables.outcome_phrase(counts),
        "tables": tables.main_table(expansion, frames, published),
        "published": published,
        "unlike_published": protocol.recipe_changes(Recipe(), expansion.recipe),
        "collapses": tables.collapses(frames),
        "failures": tables.failures(frames),
        "readings": frames.readings,
        "costs": tables.cost_table(frames),
        "total_seconds": sum(
            reading.record.cost.train_seconds
            for reading in frames.readings.values()
            if reading.record is not None
        ),
        "recipe": protocol.recipe_text(expansion.recipe),
        "recipe_exceptions": protocol.recipe_exceptions(expansion),
        "dataset": protocol.dataset_text(expansion.dataset),
        "methods": protocol.method_texts(expansion),
        "environment": protocol.distinct_values(frames, "environment"),
        "execution": protocol.distinct_values(frames, "execution"),
        "analysis": analysis_table(analysis, frames) if analysis else [],
        "analysis_problem": analysis_problem,
        "plan": plan,
        "plan_problem": plan_problem,
        **_figures(expansion, frames),
    }


def html(context: dict[str, Any]) -> str:
    """Return the page. Everything that comes from data is escaped; only our own SVG is not."""
    environment = Environment(
        loader=PackageLoader("report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formats, name) for name in FILTERS}
    environment.filters |= {
        "published_text": markdown.published_text,
        "plan_sentence": plan_sentence,
        "wall_sentence": wall_sentence,
        "records": lambda frame: frame.to_dict("records"),
    }
    return environment.get_template("report.html.j2").render(context)


def _figures(expansion: Expansion, frames: Frames) -> dict[str, Any]:
    """Return the figures of every pair that has finished runs."""
    look = looks(expansion.methods, tables.CONTROL)
    split, classes = expansion.dataset.split, protocol.number_of_classes(frames)
    dots, curves, watched = [], [], []
    for place, (pair, runs) in enumerate(frames.runs.groupby("pair", sort=False)):
        epochs = frames.epochs[frames.epochs["pair"] == pair]
        if (runs["outcome"] == "done").any():
            dots.append(Markup(figures.last_epoch_dots(runs, look, f"dots{place}", split)))
        if epochs.empty:
            continue
        curves.append(Markup(figures.learning_curves(epochs, look, f"curves{place}", split)))
        panels = figures.diagnostics(epochs, look, f"watch{place}", classes)
        if panels:
            collapsed = bool(runs["collapsed"].eq(True).any())
            watched.append((pair, collapsed, [Markup(panel) for panel in panels]))
    return {"dots": dots, "curves": curves, "diagnostics": watched}
