"""The answer that the report opens with, worded from the data and no stronger than they are."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from report.formats import interval, listing, plural, signed
from report.frame import Frames
from report.statistics import Difference, mean_difference
from report.tables import CONTROL, accuracy_by_seed, collapses


@dataclass(frozen=True)
class Average:
    """A method's gain over the student alone, averaged over pairs at each seed."""

    method: str
    pairs: tuple[str, ...]
    by_seed: dict[int, float]
    gain: Difference


def average_gains(frames: Frames) -> list[Average]:
    """Return each method's average gain, largest first.

    At each seed that all the method's pairs have, the gain is averaged over the pairs; the
    interval is over seeds. So a student's runs that several pairs share count once.
    """
    averages = []
    for method in frames.runs["method"].unique():
        if method == CONTROL:
            continue
        by_pair = {
            pair: gains
            for pair, runs in frames.runs.groupby("pair", sort=False)
            if (gains := _gains(runs, method))
        }
        common = set.intersection(*map(set, by_pair.values())) if by_pair else set()
        by_seed = {
            seed: sum(gains[seed] for gains in by_pair.values()) / len(by_pair)
            for seed in sorted(common)
        }
        gain = mean_difference(by_seed.values())
        if gain is not None:
            averages.append(Average(method, tuple(by_pair), by_seed, gain))
    return sorted(averages, key=lambda average: -average.gain.mean)


def headline(frames: Frames) -> list[str]:
    """Return the answer as sentences: which method is best on average, and how sure that is."""
    if not any(reading.outcome == "done" for reading in frames.readings.values()):
        return ["No run has finished yet, so there is nothing to answer."]
    averages = average_gains(frames)
    if not averages:
        return [
            "No method can be compared with the student alone yet: "
            "that needs finished runs of both at the same seed."
        ]
    covered = {pair for average in averages for pair in average.pairs}
    ranked = _rankable(averages, covered)
    partial = [average.method for average in averages if average not in ranked]
    if not ranked:
        return ["No method has finished in all pairs yet, so none is ranked; see the table."]
    best, total = ranked[0], frames.runs["pair"].nunique()
    if len(ranked) == 1:
        claim = f"{best.method}, the only method ranked, differs from the student alone by"
    elif best.gain.mean > 0:
        claim = f"{best.method} has the largest mean gain over the student alone:"
    else:
        claim = f"no method ranked gains over the student alone; {best.method} comes closest:"
    sentences = [
        f"Averaged over {_pairs(len(covered), total)}, {claim} {signed(best.gain.mean)} points "
        f"of top-1 accuracy at the last epoch ({_interval(best.gain)})."
    ]
    sentences.append(_against_control(best.gain))
    if len(ranked) > 1:
        sentences.append(_against_next(best, ranked[1]))
    everywhere = frames.runs.groupby("method")["pair"].nunique() == total
    for want, names in (
        ("for want of finished runs", [name for name in partial if everywhere[name]]),
        ("since not every pair has them", [name for name in partial if not everywhere[name]]),
    ):
        if names:
            sentences.append(f"Not ranked, {want}: {listing(names)}.")
    if n := len(collapses(frames)):
        sentences.append(
            f"In {plural(n, 'run')} the simplified teacher collapsed: such a run says what "
            "collapse costs, not what the method can do."
        )
    return sentences


def _rankable(averages: list[Average], covered: set[str]) -> list[Average]:
    """Leave out a method that lacks pairs, or that has one seed where others have an interval."""
    full = [average for average in averages if set(average.pairs) == covered]
    with_interval = [average for average in full if average.gain.low is not None]
    return with_interval or full


def _gains(runs: pd.DataFrame, method: str) -> dict[int, float]:
    treated, control = accuracy_by_seed(runs, method), accuracy_by_seed(runs, CONTROL)
    return {seed: treated[seed] - control[seed] for seed in treated.keys() & control.keys()}


def _pairs(covered: int, total: int) -> str:
    return plural(total, "pair") if covered == total else f"{covered} of {plural(total, 'pair')}"


def _interval(gain: Difference) -> str:
    if gain.low is None:
        return "one common seed, so no interval"
    return f"95 % interval {interval(gain)}, {gain.n} paired seeds"


def _against_control(gain: Difference) -> str:
    if gain.separated is None:
        return "One seed cannot say whether that is more than chance."
    if not gain.separated:
        return "The interval includes zero: it is not separated from the student alone."
    return "The interval excludes zero: at this many seeds it is separated from the student alone."


def _against_next(best: Average, second: Average) -> str:
    seeds = best.by_seed.keys() & second.by_seed.keys()
    ahead = mean_difference(best.by_seed[s] - second.by_seed[s] for s in sorted(seeds))
    if ahead is None or ahead.separated is None:
        return f"Next is {second.method}; there are too few common seeds to tell the two apart."
    verdict = "separated" if ahead.separated else "the two are not separated"
    return (
        f"Against the next, {second.method}, the difference is {signed(ahead.mean)} "
        f"({interval(ahead)}): {verdict}."
    )
