"""What to run first with so many device-hours: whole pairs, cheapest first. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from skd.study.expansion import Expansion
from skd.study.sheet import SheetPair

# A teacher's name, or a cell's key and a seed: what is paid for once, whoever needs it.
BudgetItem = tuple[str, int | None]


@dataclass(frozen=True)
class Proposal:
    """What fits a budget.

    Attributes:
        pairs: whole pairs, all methods; none where nothing fits or nothing is left.
        seeds: all of the study's, or fewer where not even one pair fits with all.
        seconds: device-seconds that this takes.
        smallest: device-seconds of the least that could be run, one pair with one seed, where
            nothing fits; otherwise none.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    smallest: float | None = None


def propose_pairs(
    expansion: Expansion,
    teacher_seconds: Mapping[str, float],
    run_seconds: Mapping[str, Mapping[int, float]],
    budget: float,
) -> Proposal:
    """Return which pairs to run first.

    Args:
        expansion: the study.
        teacher_seconds: of each teacher that is not at hand, by name.
        run_seconds: of each run that is left, by the cell's key and the seed.
        budget: device-seconds.
    """
    costs = {
        pair: cost
        for pair in expansion.pairs
        if (cost := _items(expansion, pair, teacher_seconds, run_seconds))
    }
    chosen: dict[tuple[str, str], None] = {}
    paid: dict[BudgetItem, float] = {}
    while open_pairs := [pair for pair in costs if pair not in chosen]:
        pair = min(open_pairs, key=lambda p: _marginal(costs[p], paid))
        if sum(paid.values()) + _marginal(costs[pair], paid) > budget:
            break
        chosen[pair] = None
        paid |= costs[pair]
    if chosen or not costs:
        return Proposal(tuple(chosen), expansion.seeds, sum(paid.values()))
    return _fewer_seeds(expansion.seeds, costs, budget)


def proposal_sheet_lines(proposal: Proposal, pairs: Sequence[SheetPair]) -> list[str]:
    """Return the proposal as lines of a study sheet.

    Args:
        proposal: its pairs are among the sheet's.
        pairs: as the sheet has them, with their settings.
    """
    written = {(pair.teacher, pair.student): pair for pair in pairs}
    lines = ["pairs:"]
    for pair in proposal.pairs:
        data = written[pair].model_dump(mode="json", exclude_defaults=True)
        lines.append(f"  - {_flow(data)}")
    seeds = [*proposal.seeds]
    return [*lines, f"seeds: {_flow(seeds) if seeds != [*range(len(seeds))] else len(seeds)}"]


def _flow(data: object) -> str:
    text = yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.strip()


def _items(
    expansion: Expansion,
    pair: tuple[str, str],
    teachers: Mapping[str, float],
    runs: Mapping[str, Mapping[int, float]],
) -> dict[BudgetItem, float]:
    """Return what a pair needs and does not have: its teacher, and every run of its methods."""
    items: dict[BudgetItem, float] = {}
    cells = [expansion.cell_of(*pair, method) for method in expansion.methods_of(*pair)]
    for cell in cells:
        for seed, seconds in runs.get(cell.key, {}).items():
            items[cell.key, seed] = seconds
    taught = any(cell.teacher in teachers and runs.get(cell.key) for cell in cells)
    if taught:
        items[pair[0], None] = teachers[pair[0]]
    return items


def _marginal(cost: Mapping[BudgetItem, float], paid: Mapping[BudgetItem, float]) -> float:
    return sum(seconds for item, seconds in cost.items() if item not in paid)


def _fewer_seeds(
    seeds: Sequence[int], costs: Mapping[tuple[str, str], Mapping[BudgetItem, float]], budget: float
) -> Proposal:
    """Return the cheapest pair that fits with as many of the first seeds as can be paid for."""
    smallest = float("inf")
    for pair in sorted(costs, key=lambda p: sum(costs[p].values())):
        best = None
        for count in range(1, len(seeds) + 1):
            kept = {None, *seeds[:count]}
            seconds = sum(value for (_, seed), value in costs[pair].items() if seed in kept)
            if count == 1:
                smallest = min(smallest, seconds)
            if seconds <= budget:
                best = Proposal((pair,), tuple(seeds[:count]), seconds)
        if best is not None:
            return best
    return Proposal(smallest=smallest)
