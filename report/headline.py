"""The sentences that the report starts with. They claim no more than the data support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.formats import ONE_SEED, interval, join_names, number, plural, signed
from report.frames.averages import (
    AverageDifference,
    average_difference,
    average_gains,
    comparable,
)
from report.frames.cells import CONTROL, SKD, CellFinding, PairFinding, with_skd
from report.frames.without_simplifier import Remainder
from report.gain_sentence import gain_sentence, most_accurate_sentence
from report.names import Names
from report.statistics.intervals import Difference
from report.statistics.verdicts import VERDICT_KINDS

MAX_NAMED = 4  # more methods are counted instead of named


@dataclass(frozen=True)
class Headline:
    """What the report says first.

    Attributes:
        lead: the answer in one sentence.
        points: sentences of the same weight, which may be none.
        fine_print: the numbers and reservations behind them, as paragraphs.
    """

    lead: str
    points: tuple[str, ...] = ()
    fine_print: tuple[str, ...] = ()


def make_headline(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    outcomes: Mapping[str, int],
    margin: float,
    names: Names,
    unmoved: Mapping[str, Remainder] | None = None,
) -> Headline:
    """Return the answer of a study.

    Args:
        pairs: the findings of its pairs.
        methods: its methods, in the order of the sheet.
        outcomes: the number of its runs by outcome.
        margin: margin of equivalence of the verdicts, in points.
        names: what readers call methods and networks.
        unmoved: what methods with SKD amount to whose simplifier has not changed its teacher.
    """
    if not outcomes.get("done"):
        nothing = "No run has finished yet, so there are no results."
        return Headline(nothing, fine_print=tuple(_unpublished_skd(pairs)))
    finished = outcomes["done"] == sum(outcomes.values())
    gains = average_gains(pairs, methods)
    answers = [*_verdicts(pairs, margin), _answer(pairs, methods, gains, names, finished)]
    fine_print = (
        *_treated_as_exact(pairs),
        *_best_gain(comparable(gains), names),
        *_not_ranked(pairs, methods, gains, names),
        *_skd_gains(pairs, methods, names, unmoved or {}),
        *_unpublished_skd(pairs),
        *_intervals(gains, pairs, names),
    )
    return Headline(answers[0], tuple(answers[1:]), fine_print)


def verdict_counts(pairs: Sequence[PairFinding]) -> dict[str, int]:
    """Return the number of published cells by verdict; a cell shared by pairs counts once."""
    judged = _judged(pairs)
    return {kind: sum(cell.verdict.kind == kind for cell in judged) for kind in VERDICT_KINDS}


def _answer(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    gains: Sequence[AverageDifference],
    names: Names,
    finished: bool,
) -> str:
    if CONTROL not in methods:
        return most_accurate_sentence(pairs, methods, names)
    if set(methods) == {CONTROL}:
        return "The study trains the student alone, so there is no method to compare it with."
    if not gains:
        return (
            "No method can be compared with the student alone yet. The comparison needs finished "
            "runs of both at a seed that all started pairs have in common."
        )
    return gain_sentence(gains, pairs, names, finished)


def _judged(pairs: Sequence[PairFinding]) -> list[CellFinding]:
    """Return the cells with a verdict.

    A cell that several pairs share, with the same published value, is included once.
    """
    unique: dict[tuple, CellFinding] = {}
    for pair in pairs:
        for cell in pair.cells:
            if cell.verdict is not None:
                key = (tuple(cell.ids.values()), cell.published.top1, cell.published.reported_epoch)
                unique.setdefault(key, cell)
    return list(unique.values())


def _verdicts(pairs: Sequence[PairFinding], margin: float) -> list[str]:
    """Return how many published values are reproduced, or nothing if none has a run."""
    counts = verdict_counts(pairs)
    missing = counts.pop("not run")
    total = sum(counts.values())
    if not total:
        return []
    within = f"reproduced within {margin:g} points"
    more = f"; {missing} more {'has' if missing == 1 else 'have'} no finished run" * bool(missing)
    reproduced = counts["reproduced"]
    if total == 1:
        kind = next(kind for kind, count in counts.items() if count)
        text = {
            "reproduced": f"The published value is {within}",
            "inconclusive": "Whether the published value is reproduced is undecided",
        }.get(kind, f"The published value is not reproduced: ours is {kind}")
        return [f"{text}{more}."]
    if reproduced == total:
        lead = f"{'Both' if total == 2 else f'All {total}'} published values are {within}"
    elif reproduced:
        verb = "is" if reproduced == 1 else "are"
        lead = f"{reproduced} of {total} published values {verb} {within}"
    else:
        lead = f"None of the {total} published values is {within}"
    others = _other_verdicts(counts)
    return [f"{lead}{f'; {others}' if others else ''}{more}."]


def _other_verdicts(counts: Mapping[str, int]) -> str:
    directions = [f"{kind} for {counts[kind]}" for kind in ("higher", "lower") if counts[kind]]
    phrases = [f"ours is {' and '.join(directions)}"] if directions else []
    if unclear := counts["inconclusive"]:
        phrases.append(f"{unclear} {'is' if unclear == 1 else 'are'} inconclusive")
    return ", and ".join(phrases)


def _treated_as_exact(pairs: Sequence[PairFinding]) -> list[str]:
    exact = sum(cell.verdict.published_is_exact for cell in _judged(pairs))
    if not exact:
        return []
    values, are = ("value", "is") if exact == 1 else ("values", "are")
    return [
        f"For {exact} published {values}, the number of runs is unstated. {values.capitalize()} of "
        f"this kind {are} treated as exact, so the verdicts higher and lower occur too often."
    ]


def _best_gain(ranked: Sequence[AverageDifference], names: Names) -> list[str]:
    """Return the largest gain and its lead over the second, with intervals."""
    if not ranked:
        return []
    best = ranked[0]
    gain = best.difference
    by_chance = ", which may be chance"
    sentences = [
        f"{names.method(best.a)} is {_relation(gain)} the student alone ({_interval(gain)})"
        f"{by_chance * (gain.excludes_zero is False)}."
    ]
    ahead = best.minus(ranked[1]) if len(ranked) > 1 else None
    if ahead is not None and ahead.excludes_zero is not None:
        uncorrected = ", which is significant without a correction for choosing the two methods"
        sentences.append(
            f"Its lead over the second, {names.method(ranked[1].a)}, is {number(ahead.mean)} "
            f"points ({interval(ahead)}){uncorrected if ahead.excludes_zero else by_chance}."
        )
    if unclear := [gain for gain in ranked[1:] if gain.difference.excludes_zero is False]:
        listed = [f"{names.method(g.a)} ({signed(g.difference.mean)})" for g in unclear]
        also = "Also not" if gain.excludes_zero is False else "Not"
        sentences.append(
            f"{also} clearly better or worse than the student alone: {join_names(listed)}."
        )
    return [" ".join(sentences)]


def _relation(gain: Difference) -> str:
    """Return how a method stands to another one; with one seed it is not better or worse."""
    if gain.mean == 0:
        return "level with"
    above, below = ("above", "below") if gain.se is None else ("better than", "worse than")
    return f"{number(abs(gain.mean))} points {above if gain.mean > 0 else below}"


def _not_ranked(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    gains: Sequence[AverageDifference],
    names: Names,
) -> list[str]:
    """Return the gains of the methods that only some pairs have, and what is not finished."""
    ranked = {gain.a for gain in comparable(gains)}
    in_all_pairs = {m for m in methods if all(pair.cell(m) is not None for pair in pairs)}
    labels = {pair.pair: names.pair(pair) for pair in pairs}
    partial: dict[tuple[str, ...], list[AverageDifference]] = {}
    for gain in gains:
        if gain.a not in in_all_pairs:
            partial.setdefault(gain.pairs, []).append(gain)
    sentences = []
    for covered, of_pairs in partial.items():
        where = labels[covered[0]] if len(covered) == 1 else f"{len(covered)} of {len(pairs)} pairs"
        phrases = [
            f"{names.method(gain.a)} {signed(gain.difference.mean)} ({interval(gain.difference)})"
            for gain in of_pairs
        ]
        sentences.append(f"Gains on {where} alone, in points: {join_names(phrases)}.")
    started = [gain.a for gain in gains if gain.a in in_all_pairs - ranked]
    if unfinished := [names.method(method) for method in methods if method in started]:
        sentences.append(f"Not ranked because runs are not finished: {join_names(unfinished)}.")
    return [" ".join(sentences)] if sentences else []


def _skd_gains(
    pairs: Sequence[PairFinding],
    methods: Sequence[str],
    names: Names,
    unmoved: Mapping[str, Remainder],
) -> list[str]:
    """Return what adding SKD to each baseline changes, and SKD minus KD."""

    def text(gain: AverageDifference, unit: str = "") -> str:
        where = "" if len(gain.pairs) == len(pairs) else f"{plural(len(gain.pairs), 'pair')}: "
        return f"{signed(gain.difference.mean)}{unit} ({where}{interval(gain.difference)})"

    phrases, added = [], {}
    for baseline in methods:
        combined = with_skd(baseline, methods)
        gain = average_difference(pairs, combined, baseline) if combined else None
        if gain:
            phrases.append(f"{names.method(baseline)} by {text(gain)}")
            added[baseline] = unmoved.get(combined)
    skd_minus_kd = average_difference(pairs, SKD, "kd") if {SKD, "kd"} <= set(methods) else None
    sentences = []
    if phrases:
        here = _what_is_added(added, names)
        sentences.append(f"Adding SKD{here} changes, in points, {join_names(phrases)}.")
    if skd_minus_kd:
        sentences.append(
            f"{names.method(SKD)} minus {names.method('kd')}: {text(skd_minus_kd, ' points')}."
        )
    return [" ".join(sentences)] if sentences else []


def _what_is_added(added: Mapping[str, Remainder | None], names: Names) -> str:
    """Return what adding SKD to baselines means if no simplifier has had an effect.

    It is a term of KD, and nothing for a baseline whose combination is the baseline itself.
    """
    if None in added.values():
        return ""
    same = [names.method(baseline) for baseline, kind in added.items() if kind == "same"]
    if len(same) == len(added):
        return " (here: adding nothing)"
    nothing = f", and nothing to {join_names(same)}" if same else ""
    return f" (here: adding {names.method('kd')}'s term{nothing})"


def _unpublished_skd(pairs: Sequence[PairFinding]) -> list[str]:
    skd_cells = [cell for pair in pairs for cell in pair.cells if SKD in cell.method.split("+")]
    published = any(cell.published for pair in pairs for cell in pair.cells)
    if skd_cells and published and not any(cell.published for cell in skd_cells):
        return [
            "The SKD paper's own numbers are not available to this project, so no SKD result is "
            "compared with the paper."
        ]
    return []


def _intervals(
    gains: Sequence[AverageDifference], pairs: Sequence[PairFinding], names: Names
) -> list[str]:
    """Return what clearly better means, and what is left of it after a correction."""
    if not any(gain.difference.se is not None for gain in gains):
        return []
    meaning = (
        "A method clearly beats the student alone, or is clearly worse, if the 95 % interval of "
        "its gain excludes zero"
    )
    if len(gains) > 1:
        meaning += ", without a correction for the number of methods"
    of = "this pair and teacher" if len(pairs) == 1 else "these pairs and teachers"
    sentences = [f"{meaning}.", *(_corrected(pairs[0], names) if len(pairs) == 1 else [])]
    if len(pairs) > 1 and len(gains) > 1:
        sentences = [f"{meaning}; the p-values of the comparisons within a pair are corrected."]
    return [f"{' '.join(sentences)} The intervals are over seeds, for {of} only."]


def _corrected(pair: PairFinding, names: Names) -> list[str]:
    """Return which methods differ from the student alone after Holm's correction."""
    tested = [comparison for comparison in pair.comparisons if comparison.p is not None]
    of_control = [pair.comparison_of(cell.method, CONTROL) for cell in pair.cells]
    with_p = [c for c in of_control if c is not None and c.p is not None]
    if len(tested) < 2 or not with_p:
        return []
    differ = [names.method(c.a) for c in with_p if c.significant]
    n = len(with_p)
    if not differ:
        which = "no method differs"
    elif len(differ) == n:
        which = "every method differs" if n > 1 else f"{differ[0]} differs"
    elif len(differ) > MAX_NAMED:
        which = f"{len(differ)} of {n} methods differ"
    else:
        which = f"only {join_names(differ)} differ{'s' * (len(differ) == 1)}"
    return [
        f"After Holm's correction over all {len(tested)} comparisons, {which} significantly from "
        "the student alone."
    ]


def _interval(gain: Difference) -> str:
    if gain.se is None:
        return ONE_SEED
    return f"95 % interval {interval(gain)}, {gain.n} paired seeds"
