"""The output of `skd diff --equivalence` for a terminal."""

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
    """Return the result of the test for a terminal: outcome, cells, and runs without a pair."""
    margin = f"{equivalence.margin:g}"
    count = sum(cell.outcome == "equivalent" for cell in equivalence.cells)
    title = (
        f"Equivalence within ± {margin} points: {count} of "
        f"{plural(len(equivalence.cells), 'cell')} equivalent"
    )
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), " (two one-sided t tests at 5 %)")
    ]
    for side, executions in zip("AB", equivalence.executions, strict=True):
        parts.append(Text(f"  {side}: {_executions_text(executions)}"))
    if equivalence.cells:
        parts.append(_cell_table(equivalence))
    if equivalence.unpaired:
        parts.append(Text("Not compared:", style="bold"))
        for runs in equivalence.unpaired:
            seeds = ", ".join(map(str, runs.seeds))
            noun = "seed" if len(runs.seeds) == 1 else "seeds"
            effect = "; so A and B are not shown to be equivalent" * runs.failed_in_one
            text = Text(f"{_cell_name(runs.cell)}, {noun} {seeds}: {runs.reason}{effect}")
            parts.append(Padding(text, (0, 0, 0, 2)))
    verdict = "equivalent" if equivalence.is_equivalent else "NOT SHOWN TO BE EQUIVALENT"
    parts.append(Text.assemble((f"A and B are {verdict}", "bold"), f" within ± {margin} points"))
    if any(cell.outcome == "undecided" for cell in equivalence.cells):
        parts.append(
            Text("Undecided cells need more seeds; a test needs at least two pairs of runs.")
        )
    return Group(*parts)


def _executions_text(executions: Mapping[str, int]) -> str:
    phrases = (f"{execution} ({plural(n, 'run')})" for execution, n in executions.items())
    return "; ".join(phrases) or "no run"


def _cell_table(equivalence: SetEquivalence) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cell", min_width=12, overflow="fold")
    for name in ("pairs", "A", "B \N{MINUS SIGN} A", "90 % interval", "p", "outcome"):
        table.add_column(name, no_wrap=True)
    margin = equivalence.margin
    for cell in equivalence.cells:
        outcome = _outcome_text(cell.outcome)
        if cell.same_teacher is False:
            outcome.append("\nother teacher", style="dim")
        mean, test = number(cell.a.mean), _test_texts(cell.difference, margin)
        table.add_row(Text(_cell_name(cell.cell)), str(cell.a.n), mean, *test, outcome)
    pooled = equivalence.pooled
    table.add_row(
        f"mean of {plural(equivalence.pooled_cells, 'cell')} at each seed",
        str(pooled.n if pooled else 0),
        "",
        *_test_texts(pooled, margin),
        _outcome_text(equivalence.pooled_outcome),
    )
    return table


def _cell_name(cell: str) -> str:
    """Return a cell's key with spaces, at which a line can be broken."""
    return cell.replace("--", " → ").replace("/", " ")


def _test_texts(difference: Difference | None, margin: float) -> tuple[str, str, str]:
    """Return a difference, its 90 % interval, and the p-value of the test."""
    if difference is None:
        return ABSENT, ABSENT, ABSENT
    bounds = difference.interval(EQUIVALENCE_CONFIDENCE)
    interval = "one pair" if bounds is None else signed_range(bounds)
    return signed(difference.mean), interval, p_value(difference.p_within(margin))


def _outcome_text(outcome: str) -> Text:
    return Text(outcome, style=OUTCOME_STYLES[outcome])
