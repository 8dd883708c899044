"""What `skd diff --equivalence` says, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from report.diff.equivalence import SetEquivalence
from report.formats import ABSENT, number, p_value, plural, signed, signed_range
from report.statistics.intervals import EQUIVALENCE_CONFIDENCE, Difference

OUTCOME_STYLES = {"equivalent": "green", "not equivalent": "red", "undecided": "yellow"}


def render_equivalence(equivalence: SetEquivalence) -> Group:
    """Return the test of two result sets for a terminal: its outcome, cells, what is left out."""
    margin = f"{equivalence.margin:g}"
    same = sum(cell.outcome == "equivalent" for cell in equivalence.cells)
    title = (
        f"Equivalence within ± {margin} points: {same} of {plural(len(equivalence.cells), 'cell')} "
        "equivalent"
    )
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), " (two one-sided t tests at 5 %)")
    ]
    for side, executed in zip("AB", equivalence.executed, strict=True):
        parts.append(Text(f"  {side}: {_executed(executed)}"))
    if equivalence.cells:
        parts.append(_cells(equivalence))
    if equivalence.unpaired:
        parts.append(Text("Not compared:", style="bold"))
        for runs in equivalence.unpaired:
            seeds = ", ".join(map(str, runs.seeds))
            noun = "seed" if len(runs.seeds) == 1 else "seeds"
            against = "; so A and B are not shown to be equivalent" * runs.broken
            text = Text(f"{_named(runs.cell)}, {noun} {seeds}: {runs.why}{against}")
            parts.append(Padding(text, (0, 0, 0, 2)))
    verdict = "equivalent" if equivalence.shown else "NOT SHOWN TO BE EQUIVALENT"
    parts.append(Text.assemble((f"A and B are {verdict}", "bold"), f" within ± {margin} points"))
    if any(cell.outcome == "undecided" for cell in equivalence.cells):
        parts.append(
            Text("Undecided cells need more seeds; a test needs two pairs of runs at least.")
        )
    return Group(*parts)


def _executed(executed: Mapping[str, int]) -> str:
    return "; ".join(f"{how} ({plural(n, 'run')})" for how, n in executed.items()) or "no run"


def _cells(found: SetEquivalence) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cell", min_width=12, overflow="fold")
    for name in ("pairs", "A", "B \N{MINUS SIGN} A", "90 % interval", "p", "outcome"):
        table.add_column(name, no_wrap=True)
    for cell in found.cells:
        outcome = _outcome(cell.outcome)
        if cell.same_teacher is False:
            outcome.append("\nother teacher", style="dim")
        mean, tested = number(cell.a.mean), _tested(cell.difference, found.margin)
        table.add_row(Text(_named(cell.cell)), str(cell.a.n), mean, *tested, outcome)
    table.add_row(
        f"mean of {plural(found.pooled_cells, 'cell')} at each seed",
        str(found.pooled.n if found.pooled else 0),
        "",
        *_tested(found.pooled, found.margin),
        _outcome(found.pooled_outcome),
    )
    return table


def _named(cell: str) -> str:
    """Return a cell's key with places to break a line at."""
    return cell.replace("--", " → ").replace("/", " ")


def _tested(difference: Difference | None, margin: float) -> tuple[str, str, str]:
    """Return a difference, its 90 % interval, and the p-value of the test."""
    if difference is None:
        return ABSENT, ABSENT, ABSENT
    bounds = difference.interval(EQUIVALENCE_CONFIDENCE)
    interval = "one pair" if bounds is None else signed_range(bounds)
    return signed(difference.mean), interval, p_value(difference.p_within(margin))


def _outcome(outcome: str) -> Text:
    return Text(outcome, style=OUTCOME_STYLES[outcome])
