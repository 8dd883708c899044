"""A proposal for a budget of device-hours: whole pairs, the cheapest first. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from skd.planning.survey import Survey
from skd.study.expansion import Expansion
from skd.study.sheet import SheetPair

# A teacher's name and None, or a cell's key and a seed. The budget pays for each item once, even if
# several pairs need it.
BudgetItem = tuple[str, int | None]


@dataclass(frozen=True)
class Proposal:
    """What fits a budget.

    Attributes:
        pairs: whole pairs with all methods; empty if nothing fits or nothing is left to run.
        seeds: all seeds of the study, or fewer if no pair fits with all of them.
        seconds: the device-seconds of the pairs.
        smallest: if nothing fits, the device-seconds of the cheapest pair with one seed; else
            ``None``.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    smallest: float | None = None


def propose_for_hours(survey: Survey, hours: float) -> Proposal:
    """Return which pairs of a study to run first within a number of device-hours."""
    run_seconds = {
        key: dict.fromkeys(seeds, survey.cell_seconds[key] / len(seeds))
        for key, seeds in survey.seeds_left.items()
        if seeds
    }
    teacher_seconds = dict(survey.teacher_seconds)
    for name, seconds in survey.views_left.items():
        teacher_seconds[name] = teacher_seconds.get(name, 0.0) + seconds
    return propose_pairs(survey.expansion, teacher_seconds, run_seconds, 3600 * hours)


def propose_pairs(
    expansion: Expansion,
    teacher_seconds: Mapping[str, float],
    run_seconds: Mapping[str, Mapping[int, float]],
    budget: float,
) -> Proposal:
    """Return which pairs to run first.

    Args:
        expansion: the study.
        teacher_seconds: the device-seconds of each missing teacher, by name.
        run_seconds: the device-seconds of each missing run, by the cell's key and the seed.
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
        proposal: a proposal whose pairs are in the sheet.
        pairs: the sheet's pairs, with their settings.
    """
    sheet_pairs = {(pair.teacher, pair.student): pair for pair in pairs}
    lines = ["pairs:"]
    for pair in proposal.pairs:
        data = sheet_pairs[pair].model_dump(mode="json", exclude_defaults=True)
        lines.append(f"  - {_flow_style(data)}")
    seeds = [*proposal.seeds]
    return [*lines, f"seeds: {_flow_style(seeds) if seeds != [*range(len(seeds))] else len(seeds)}"]


def _flow_style(data: object) -> str:
    text = yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.strip()


def _items(
    expansion: Expansion,
    pair: tuple[str, str],
    teachers: Mapping[str, float],
    runs: Mapping[str, Mapping[int, float]],
) -> dict[BudgetItem, float]:
    """Return what a pair lacks with its seconds: its teachers, and runs of its methods."""
    items: dict[BudgetItem, float] = {}
    cells = [expansion.cell_of(*pair, method) for method in expansion.methods_of(*pair)]
    for cell in cells:
        for seed, seconds in runs.get(cell.key, {}).items():
            items[cell.key, seed] = seconds
        if cell.teacher in teachers and runs.get(cell.key):
            items[cell.teacher, None] = teachers[cell.teacher]
    return items


def _marginal(cost: Mapping[BudgetItem, float], paid: Mapping[BudgetItem, float]) -> float:
    """Return the seconds of those items that are not paid for yet."""
    return sum(seconds for item, seconds in cost.items() if item not in paid)


def _fewer_seeds(
    seeds: Sequence[int], costs: Mapping[tuple[str, str], Mapping[BudgetItem, float]], budget: float
) -> Proposal:
    """Return the cheapest pair that fits, with as many of the first seeds as the budget allows."""
    smallest = float("inf")
    for pair in sorted(costs, key=lambda p: sum(costs[p].values())):
        best = None
        for count in range(1, len(seeds) + 1):
            included = {None, *seeds[:count]}
            seconds = sum(value for (_, seed), value in costs[pair].items() if seed in included)
            if count == 1:
                smallest = min(smallest, seconds)
            if seconds <= budget:
                best = Proposal((pair,), tuple(seeds[:count]), seconds)
        if best is not None:
            return best
    return Proposal(smallest=smallest)
