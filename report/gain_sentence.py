"""The answer in one sentence: which methods beat the student alone, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from report.formats import join_names, number
from report.frames.averages import AverageDifference, comparable
from report.frames.cells import PairFinding
from report.names import Names

MAX_NAMED = 2  # more methods are counted instead of named
FIRST_WORDS = ("averaged", "each", "every", "no", "none", "on", "so", "with")
UNCLEAR = "is not clearly better or worse than"


def gain_sentence(
    gains: Sequence[AverageDifference],
    pairs: Sequence[PairFinding],
    names: Names,
    finished: bool = True,
) -> str:
    """Return which methods beat the student alone and which gains most.

    A method beats the student alone, or is worse, if the 95 % interval of its gain excludes zero.
    With one seed it is only above or below.

    Args:
        gains: of the methods over the student alone, largest first; at least one.
        pairs: all pairs of the study.
        names: what readers call methods and networks.
        finished: whether all runs have finished.
    """
    ranked = comparable(gains)
    elsewhere = _better_on_fewer_pairs(gains, ranked)
    scope = [] if finished else ["so far"]
    # Nothing covers all pairs: the largest gain is then on its own pairs.
    ranked, elsewhere = (ranked, elsewhere) if ranked else ([gains[0]], None)
    labels = {pair.pair: names.pair(pair) for pair in pairs}
    scope += _scope(ranked[0].pairs, labels)
    one_seed = ranked[0].difference.se is None
    if one_seed:
        scope = [*scope[:-1], f"{scope[-1]} with one seed" if scope else "with one seed"]
    of_all = any(len(gain.pairs) < len(ranked[0].pairs) for gain in gains)
    claim = _claim_of_one_seed if one_seed else _claim
    sentence = claim(ranked, names, " in all pairs" if of_all else "")
    sentence = ", ".join([*scope, sentence])
    best = _elsewhere(elsewhere, labels, names, one_seed) if elsewhere else _best(ranked, names)
    if len(_winners(ranked)) == 1 < len(ranked) and not elsewhere:
        best = ""  # the claim names the best already
    if sentence.split()[0].strip(",") in FIRST_WORDS:  # a method's name keeps its case
        sentence = sentence[0].upper() + sentence[1:]
    return f"{sentence}{best}."


def most_accurate_sentence(
    pairs: Sequence[PairFinding], methods: Sequence[str], names: Names
) -> str:
    """Return the answer of a study without the student alone."""
    missing = "The study does not train the student alone, so the methods' gains are unknown"
    started = [pair for pair in pairs if any(cell.done for cell in pair.cells)]
    means = {}
    for method in methods:
        cells = [pair.cell(method) for pair in started]
        if all(cell is not None and cell.done for cell in cells):
            means[method] = sum(cell.last.mean for cell in cells) / len(cells)
    if not means:
        return f"{missing}."
    best = max(means, key=lambda method: means[method])
    verb = "has the highest accuracy," if len(means) > 1 else "has an accuracy of"
    mean = f" on average over {len(started)} pairs" if len(started) > 1 else ""
    return f"{missing}; {names.method(best)} {verb} {number(means[best], 1)} %{mean}."


def _scope(covered: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    if len(labels) == 1:
        return []
    if len(covered) == 1:
        return [f"on {labels[covered[0]]}"]
    of_all = f" of {len(labels)}" if len(covered) < len(labels) else ""
    return [f"averaged over {len(covered)}{of_all} pairs"]


def _claim(ranked: Sequence[AverageDifference], names: Names, which: str) -> str:
    better = [gain.a for gain in _winners(ranked)]
    worse = [gain.a for gain in ranked if gain.difference.direction < 0]
    n = len(ranked)
    if n == 1:
        verb = "beats" if better else "is worse than" if worse else UNCLEAR
        return f"{names.method(ranked[0].a)} {verb} the student alone"
    if len(better) == n:
        return f"{_every(n, which)} beats the student alone"
    if len(worse) == n:
        return f"{_every(n, which)} is worse than the student alone"
    if not better and not worse:
        return f"{_none(n, which)} is clearly better or worse than the student alone"
    if not better:
        are = "is" if len(worse) == 1 else "are"
        return (
            f"{_none(n, which)} clearly beats the student alone, and "
            f"{_named(worse, names)} {are} worse"
        )
    clearly = "clearly " if len(better) + len(worse) < n else ""
    subject = _subject(better, n, which, names)
    text = f"{subject} {clearly}{'beats' if len(better) == 1 else 'beat'} the student alone"
    text += f" ({_numbers(ranked[0])})" * (len(better) == 1)
    if worse:
        text += f", and {_named(worse, names)} {'is' if len(worse) == 1 else 'are'} worse"
    return text


def _claim_of_one_seed(ranked: Sequence[AverageDifference], names: Names, which: str) -> str:
    above = [gain.a for gain in _winners(ranked)]
    n = len(ranked)
    if n == 1:
        mean = ranked[0].difference.mean
        place = "above" if mean > 0 else "below" if mean < 0 else "level with"
        return f"{names.method(ranked[0].a)} is {place} the student alone"
    if not above:
        return f"{_none(n, which)} is above the student alone"
    if len(above) == n:
        return f"{_every(n, which)} is above the student alone"
    are = "is" if len(above) == 1 else "are"
    numbers = f" ({_numbers(ranked[0])})" * (len(above) == 1)
    return f"{_subject(above, n, which, names)} {are} above the student alone{numbers}"


def _best(ranked: Sequence[AverageDifference], names: Names) -> str:
    """Return the best method's accuracy against the student alone's."""
    best = ranked[0]
    ours, alone = best.accuracies
    numbers = _numbers(best)
    if len(ranked) == 1:
        return f": {numbers}"
    name = names.method(best.a)
    if best.difference.mean <= 0:
        return f"; {name} comes closest: {numbers}"
    level = [gain for gain in ranked[1:] if not _clearly_behind(gain, best)]
    if best.difference.direction > 0 and not level:
        return f"; {name} helps most: {numbers}"
    if best.difference.direction > 0 and len(level) == 1 and level[0].difference.direction > 0:
        second = number(level[0].accuracies[0], 1)
        return (
            f"; {name} and {names.method(level[0].a)} help most: {number(ours, 1)} % and "
            f"{second} % against {number(alone, 1)} %"
        )
    return f"; {name} has the highest accuracy: {numbers}"


def _winners(ranked: Sequence[AverageDifference]) -> list[AverageDifference]:
    """Return the methods that beat the student alone; with one seed, those above it."""
    if ranked[0].difference.se is None:
        return [gain for gain in ranked if gain.difference.mean > 0]
    return [gain for gain in ranked if gain.difference.direction > 0]


def _numbers(gain: AverageDifference) -> str:
    ours, alone = gain.accuracies
    return f"{number(ours, 1)} % against {number(alone, 1)} %"


def _clearly_behind(gain: AverageDifference, best: AverageDifference) -> bool:
    ahead = best.minus(gain)
    return ahead is not None and bool(ahead.excludes_zero)


def _better_on_fewer_pairs(
    gains: Sequence[AverageDifference], ranked: Sequence[AverageDifference]
) -> AverageDifference | None:
    """Return the largest gain if it is one of fewer pairs, and positive."""
    if not ranked or gains[0] in ranked or gains[0].difference.mean <= 0:
        return None
    return gains[0] if len(gains[0].pairs) < len(ranked[0].pairs) else None


def _elsewhere(
    gain: AverageDifference, labels: Mapping[str, str], names: Names, one_seed: bool
) -> str:
    where = labels[gain.pairs[0]] if len(gain.pairs) == 1 else f"{len(gain.pairs)} pairs"
    known = one_seed and gain.difference.se is None  # the sentence starts with this reservation
    chance = "" if known or gain.difference.direction > 0 else ", which may be chance"
    return (
        f"; on {where}, {names.method(gain.a)} gains {number(gain.difference.mean)} points{chance}"
    )


def _every(n: int, which: str) -> str:
    return f"each of the {n} methods{which}" if which else "every method"


def _none(n: int, which: str) -> str:
    return f"none of the {n} methods{which}" if which else "no method"


def _subject(methods: Sequence[str], n: int, which: str, names: Names) -> str:
    return _named(methods, names, f" of the {n} methods{which}" if which else f" of {n} methods")


def _named(methods: Sequence[str], names: Names, of: str = "") -> str:
    """Return the names of a few methods; of more their number, of which it is a part."""
    if len(methods) <= MAX_NAMED:
        return join_names([names.method(method) for method in methods])
    return f"{len(methods)}{of}"
