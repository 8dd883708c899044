"""Checks of the students' accuracies: chance level, equality, spread, number of seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from statistics import median

from report.formats import number, plural
from report.frames.averages import AverageDifference, average_gains
from report.frames.cells import CellFinding, PairFinding
from report.names import Names
from report.sanity.doubts import Doubt, name_some
from report.statistics.intervals import CONFIDENCE, Difference, summarise, t_quantile

CHANCE_ERRORS = 3.0  # standard errors of guessing on the test images
MAX_SPREAD = 3.0  # standard deviation over seeds in points; CIFAR-100 students have 0.2 to 0.6
SPREAD_ERRORS = 3.0  # or this many standard errors of the test images, if that is more
LARGE_DIFFERENCE = 1.0  # points; papers discuss smaller ones
MIN_EQUAL = 2  # accuracies; on few test images a single one may be equal by chance
MAX_SEEDS = 50  # that a reader would train


def chance_ceiling(classes: int, images: int) -> float:
    """Return the accuracy in percent up to which a student cannot be told from guessing.

    It is the chance level and three standard errors of guessing on this many test images.
    """
    p = 1 / classes
    return 100 * (p + CHANCE_ERRORS * math.sqrt(p * (1 - p) / images))


def students_at_chance(
    pairs: Sequence[PairFinding], classes: int, images: int, names: Names
) -> list[Doubt]:
    """Return the methods with runs at chance level."""
    ceiling = chance_ceiling(classes, images)
    lines, whole = [], []
    started = [(pair, cell) for pair in pairs for cell in pair.cells if cell.done]
    for pair, cell in started:
        low = {seed: top1 for seed, top1 in cell.last_by_seed.items() if top1 <= ceiling}
        if not low:
            continue
        whole.append(len(low) == cell.done)
        values = ", ".join(f"seed {seed}: {number(top1)} %" for seed, top1 in sorted(low.items()))
        lines.append(f"{names.method(cell.method)}, {names.pair(pair)} ({values})")
    if not lines:
        return []
    if len(lines) == len(started) and all(whole):
        text = (
            f"Every run is at chance level (at most {number(ceiling)} % on {classes} classes): the "
            "networks have learned nothing. Check the recipe and the data."
        )
        return [Doubt("method-at-chance", "fatal", text, tuple(lines))]
    text = (
        f"At chance level (at most {number(ceiling)} % on {classes} classes): "
        f"{name_some(lines)}. {'Its' if len(lines) == 1 else 'Their'} mean accuracy measures a "
        "failed training, not the method."
    )
    return [Doubt("method-at-chance", "caution", text)]


def equal_methods(pairs: Sequence[PairFinding], names: Names) -> list[Doubt]:
    """Return the pairs in which all methods have exactly the same accuracies."""
    equal, compared = [], 0
    for pair in pairs:
        cells = [cell for cell in pair.cells if cell.done]
        runs = {tuple(cell.ids.values()) for cell in cells}
        seeds = set.intersection(*(set(c.last_by_seed) for c in cells)) if cells else set()
        if (len(runs) - 1) * len(seeds) < MIN_EQUAL:
            continue
        compared += 1
        if all(len({c.last_by_seed[seed] for c in cells}) == 1 for seed in seeds):
            equal.append(names.pair(pair))
    if not equal:
        return []
    everywhere = len(equal) == compared
    where = "" if everywhere else f" on {name_some(equal)}"
    text = (
        f"All methods have exactly the same accuracy in every seed{where}. Their losses have had "
        "no effect: check the weights of the terms and the number of epochs."
    )
    return [Doubt("equal-methods", "fatal" if everywhere else "caution", text)]


def wide_spread(
    pairs: Sequence[PairFinding], images: int, collapsed: Collection[str], names: Names
) -> list[Doubt]:
    """Return the cells whose seeds spread more than training and sampling explain.

    Args:
        pairs: the findings of the pairs.
        images: number of test images.
        collapsed: identities of runs with a collapsed simplifier, which another check reports.
        names: what readers call methods and networks.
    """
    lines = []
    for pair, cell in [(of, cell) for of in pairs for cell in of.cells]:
        spread = _spread(cell, collapsed)
        if spread is not None and spread > max(MAX_SPREAD, SPREAD_ERRORS * _error(cell, images)):
            on = f" on {names.pair(pair)}" if len(pairs) > 1 else ""
            lines.append(f"{names.method(cell.method)}{on} ({number(spread, 1)} points)")
    if not lines:
        return []
    text = (
        f"The accuracy varies by more than {MAX_SPREAD:g} points (standard deviation over seeds) "
        f"for {name_some(lines)}. Look at the individual runs before the means."
    )
    return [Doubt("wide-spread", "caution", text)]


def few_seeds(pairs: Sequence[PairFinding], methods: Sequence[str], seeds: int) -> list[Doubt]:
    """Return a doubt if the study has one seed, or so few that only a large gain can be seen.

    The least gain that can be seen is half the width of a 95 % interval, the median over methods.

    Args:
        pairs: the findings of the pairs.
        methods: the study's methods.
        seeds: number of seeds in the sheet.
    """
    most = max((cell.done for pair in pairs for cell in pair.cells), default=0)
    gains = average_gains(pairs, methods)
    with_interval = [gain.difference for gain in gains if gain.difference.se is not None]
    if len(methods) > 1 and (most == 1 or (gains and not with_interval)):
        return [_one_seed(seeds, most)]
    if not with_interval:
        return []
    half = median(_half_width(difference) for difference in with_interval)
    typical = median(abs(difference.mean) for difference in with_interval)
    if half <= max(LARGE_DIFFERENCE, typical):
        return []
    n = _typical_seeds(gains)
    text = (
        f"With {plural(n, 'seed')}, a gain below about {number(half, 1)} points cannot be told "
        "from chance."
    )
    if more := _seeds_for(LARGE_DIFFERENCE, with_interval):
        text += (
            f" About {more} seeds would be enough to detect a gain of {LARGE_DIFFERENCE:g} point."
        )
    return [Doubt("few-seeds", "caution", text)]


def _one_seed(seeds: int, most: int) -> Doubt:
    """Return the doubt of a study of one seed, or of no common two; ``most``: of any method."""
    if seeds == 1:
        reason = "The study has one seed"
    elif most == 1:
        reason = "So far each method has at most one seed"
    else:
        reason = "So far there is one common seed"
    text = f"{reason}, so no difference between methods can be told from chance."
    return Doubt("one-seed", "caution", text)


def _half_width(difference: Difference) -> float:
    low, high = difference.interval()
    return (high - low) / 2


def _typical_seeds(gains: Sequence[AverageDifference]) -> int:
    counts = [gain.difference.n for gain in gains if gain.difference.se is not None]
    return max(set(counts), key=counts.count)


def _seeds_for(points: float, differences: Sequence[Difference]) -> int | None:
    """Return how many seeds separate this gain at the median spread, or ``None`` for too many."""
    sd = median(difference.se * math.sqrt(difference.n) for difference in differences)
    for n in range(2, MAX_SEEDS + 1):
        if t_quantile(CONFIDENCE, n - 1) * sd / math.sqrt(n) <= points:
            return n
    return None


def _spread(cell: CellFinding, collapsed: Collection[str]) -> float | None:
    return summarise(
        top1 for seed, top1 in cell.last_by_seed.items() if cell.ids[seed] not in collapsed
    ).sd


def _error(cell: CellFinding, images: int) -> float:
    """Return the standard error of one run's accuracy in points, from sampling test images."""
    p = cell.last.mean / 100
    return 100 * math.sqrt(max(p * (1 - p), 0) / images)
