"""The answer that the report opens with, worded from the data and no stronger than they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from report.formats import ONE_SEED, interval, join_names, plural, signed
from report.frames.cells import CONTROL, SKD, CellFinding, PairFinding, with_skd
from report.frames.code_columns import code_sentences
from report.frames.outcomes import collapsed_runs
from report.frames.study_frames import DIAGNOSTIC_PREFIX, Frames, last_diagnostic_epochs
from report.statistics.intervals import Difference, average_by_seed, mean_difference
from report.statistics.verdicts import VERDICT_KINDS

UNCHANGED_BELOW = (
    0.001  # nats, of the softened from the simplified teacher: less changes next to nothing
)


@dataclass(frozen=True)
class AverageDifference:
    """Method a minus method b, averaged over pairs at each seed."""

    a: str
    b: str
    pairs: tuple[str, ...]
    by_seed: dict[int, float]
    difference: Difference

    @property
    def basis(self) -> str:
        """On what the average rests: its interval, seeds and pairs."""
        return f"{plural(len(self.pairs), 'pair')}, {_interval(self.difference)}"


def average_difference(pairs: Sequence[PairFinding], a: str, b: str) -> AverageDifference | None:
    """Return a minus b over the pairs that have both, or none without a common seed.

    At each seed that all those pairs have, the difference is averaged over the pairs; the interval
    is over seeds. So a student's runs that several pairs share count once.
    """
    by_pair: dict[str, dict[int, float]] = {}
    for pair in pairs:
        one, other = pair.cell(a), pair.cell(b)
        if one is None or other is None:
            continue
        common = one.last_by_seed.keys() & other.last_by_seed.keys()
        if common:
            by_pair[pair.pair] = {s: one.last_by_seed[s] - other.last_by_seed[s] for s in common}
    by_seed = average_by_seed(by_pair.values())
    # A mean over pairs has a finer step than one pair's accuracy.
    step = pairs[0].resolution / math.sqrt(len(by_pair)) if by_pair else 0.0
    difference = mean_difference(by_seed.values(), step)
    return AverageDifference(a, b, tuple(by_pair), by_seed, difference) if difference else None


def average_gains(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[AverageDifference]:
    """Return each method's average gain over the student alone, largest first."""
    found = (average_difference(pairs, method, CONTROL) for method in methods if method != CONTROL)
    return sorted((gain for gain in found if gain), key=lambda gain: -gain.difference.mean)


def headline(
    pairs: Sequence[PairFinding], methods: Sequence[str], frames: Frames, margin: float
) -> list[str]:
    """Return the answer as paragraphs, the lead first.

    How many published cells hold, which method is best and how sure that is, what SKD adds to each
    baseline, and what is not known.
    """
    doubtful = _doubtful(frames)
    if not any(reading.outcome == "done" for reading in frames.run_states.values()):
        nothing = "No run has finished yet, so there is nothing to answer."
        return [nothing, *doubtful, *_unknown(pairs)]
    return [
        *_verdicts(pairs, margin),
        *doubtful,
        *_best(pairs, methods),
        *_additions(pairs, methods),
        *_still(frames),
        *_unknown(pairs),
        *_mixed(pairs),
        *code_sentences(frames.runs),
        *_collapsed(frames),
    ]


def verdict_counts(pairs: Sequence[PairFinding]) -> dict[str, int]:
    """Return how many published cells came to each verdict; a cell shared by pairs counts once."""
    judged = _judged(pairs)
    return {kind: sum(cell.verdict.kind == kind for cell in judged) for kind in VERDICT_KINDS}


def _judged(pairs: Sequence[PairFinding]) -> list[CellFinding]:
    """Return the cells with a verdict; one shared by pairs, and published alike, once."""
    once: dict[tuple, CellFinding] = {}
    for pair in pairs:
        for cell in pair.cells:
            if cell.verdict is not None:
                key = (tuple(cell.ids.values()), cell.published.top1, cell.published.reported_epoch)
                once.setdefault(key, cell)
    return list(once.values())


def _verdicts(pairs: Sequence[PairFinding], margin: float) -> list[str]:
    counts = verdict_counts(pairs)
    total = sum(counts.values())
    if not total:
        return []
    said = [f"{counts[kind]} {kind}" for kind in VERDICT_KINDS if counts[kind]]
    lead = (
        f"Of {plural(total, 'published accuracy', 'published accuracies')} of students: "
        f"{join_names(said)}, at a margin of {margin:g} points."
    )
    exact = sum(cell.verdict.published_is_exact for cell in _judged(pairs))
    if not exact:
        return [lead]
    return [
        lead,
        f"Of how many runs the published value is a mean is not stated for {exact} of those that "
        "were run: it is taken as exact, and higher or lower is then said too readily.",
    ]


def _best(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[str]:
    averages = average_gains(pairs, methods)
    if CONTROL not in methods:
        return ["The study has no student alone to compare its methods with."]
    if not averages:
        return [
            "No method can be compared with the student alone yet: that needs finished runs of "
            "both at a seed that all pairs begun have in common."
        ]
    covered = {pair for average in averages for pair in average.pairs}
    ranked = _rankable(averages, covered)
    if not ranked:
        return ["No method has finished in all pairs yet, so none is ranked; see the table."]
    best, gain, total = ranked[0], ranked[0].difference, len(pairs)
    if len(ranked) == 1:
        claim = f"{best.a}, the only method ranked, differs from the student alone by"
    elif gain.mean > 0:
        claim = f"{best.a} has the largest mean gain over the student alone:"
    else:
        claim = f"no method ranked gains over the student alone; {best.a} comes closest:"
    lead = (
        f"Averaged over {_pairs(len(covered), total)}, {claim} {signed(gain.mean)} points "
        f"of top-1 accuracy at the last epoch ({_interval(gain)})."
    )
    sentences = [_against_control(gain)]
    if len(ranked) > 1:
        sentences.append(_against_next(best, ranked[1]))
    everywhere = {m for m in methods if all(pair.cell(m) is not None for pair in pairs)}
    left_out = {average.a for average in averages if average not in ranked}
    partial = [method for method in methods if method in left_out]
    for want, names in (
        ("for want of finished runs", [name for name in partial if name in everywhere]),
        ("since not every pair has them", [name for name in partial if name not in everywhere]),
    ):
        if names:
            sentences.append(f"Not ranked, {want}: {join_names(names)}.")
    return [lead, " ".join(sentences)]


def _additions(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[str]:
    said = []
    for baseline in methods:
        summed = with_skd(baseline, methods)
        found = average_difference(pairs, summed, baseline) if summed else None
        if found:
            said.append(f"to {baseline} {signed(found.difference.mean)} ({found.basis})")
    instead = average_difference(pairs, SKD, "kd") if {SKD, "kd"} <= set(methods) else None
    sentences = [f"SKD added to a baseline, in points: {join_names(said)}."] if said else []
    if instead:
        sentences.append(f"SKD in KD's place: {signed(instead.difference.mean)} ({instead.basis}).")
    return [" ".join(sentences)] if sentences else []


def _doubtful(frames: Frames) -> list[str]:
    """Say so of each teacher that is hardly better than chance, or far below what is published."""
    said = [
        f"{teacher['name']}: {teacher['doubts']}"
        for teacher in frames.teachers.to_dict("records")
        if teacher["doubts"]
    ]
    if not said:
        return []
    return [
        f"Doubtful teachers, whose students say little of any method: {'; '.join(said)}. Check "
        "that the weights, the network and the data set belong together."
    ]


def _still(frames: Frames) -> list[str]:
    """Say so where no simplifier has changed its teacher: what SKD gains is then not its own."""
    last = last_diagnostic_epochs(frames.epochs)
    if last.empty or not last[f"{DIAGNOSTIC_PREFIX}kl_softened_simplified"].max() < UNCHANGED_BELOW:
        return []
    return [
        f"No simplifier has moved by the last epoch (KL from the softened teacher below {UNCHANGED_BELOW:g} "
        "nats): what SKD teaches here is the teacher as it is, and skd is KD."
    ]


def _unknown(pairs: Sequence[PairFinding]) -> list[str]:
    own = [cell for pair in pairs for cell in pair.cells if SKD in cell.method.split("+")]
    published = any(cell.published for pair in pairs for cell in pair.cells)
    if own and published and not any(cell.published for cell in own):
        return [
            "Not known: the SKD paper's own numbers, which are not available here; so nothing of "
            "SKD is judged against the paper."
        ]
    return []


def _mixed(pairs: Sequence[PairFinding]) -> list[str]:
    mixed = [pair.pair for pair in pairs if pair.has_mixed_teachers]
    if not mixed:
        return []
    return [
        f"Runs of {join_names(mixed)} were taught by different teachers' weights: what is compared "
        "there differs in more than the method."
    ]


def _collapsed(frames: Frames) -> list[str]:
    if not (n := len(collapsed_runs(frames))):
        return []
    return [
        f"In {plural(n, 'run')} the simplified teacher collapsed: such a run says what "
        "collapse costs, not what the method can do."
    ]


def _rankable(averages: list[AverageDifference], covered: set[str]) -> list[AverageDifference]:
    """Leave out a method that lacks pairs, or that has one seed where others have an interval."""
    full = [average for average in averages if set(average.pairs) == covered]
    with_interval = [average for average in full if average.difference.se is not None]
    return with_interval or full


def _pairs(covered: int, total: int) -> str:
    return plural(total, "pair") if covered == total else f"{covered} of {plural(total, 'pair')}"


def _interval(gain: Difference) -> str:
    if gain.se is None:
        return ONE_SEED
    return f"95 % interval {interval(gain)}, {gain.n} paired seeds"


def _against_control(gain: Difference) -> str:
    if gain.separated is None:
        return "One seed cannot say whether that is more than chance."
    if not gain.separated:
        return "The interval includes zero: it is not separated from the student alone."
    return "The interval excludes zero: at this many seeds it is separated from the student alone."


def _against_next(best: AverageDifference, second: AverageDifference) -> str:
    seeds = best.by_seed.keys() & second.by_seed.keys()
    ahead = mean_difference(best.by_seed[s] - second.by_seed[s] for s in sorted(seeds))
    if ahead is None or ahead.separated is None:
        return f"Next is {second.a}; there are too few common seeds to tell the two apart."
    verdict = "separated" if ahead.separated else "not separated"
    return (
        f"Against the next, {second.a}, the difference is {signed(ahead.mean)} "
        f"({interval(ahead)}): {verdict} on these pairs, before any correction for choosing the "
        "two."
    )
