"""The sentences that the report starts with. They claim no more than the data support."""

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

# KL divergence in nats of the softened from the simplified teacher. Below it, the simplifier has
# practically no effect.
UNCHANGED_BELOW = 0.001


@dataclass(frozen=True)
class AverageDifference:
    """Method a minus method b, averaged over pairs at each seed.

    Attributes:
        by_seed: the average over pairs, in points.
        difference: the mean over seeds with its standard error.
    """

    a: str
    b: str
    pairs: tuple[str, ...]
    by_seed: dict[int, float]
    difference: Difference

    @property
    def basis(self) -> str:
        """The number of pairs and seeds, and the interval, as a phrase."""
        return f"{plural(len(self.pairs), 'pair')}, {_interval(self.difference)}"


def average_difference(pairs: Sequence[PairFinding], a: str, b: str) -> AverageDifference | None:
    """Return a minus b over the pairs that have both, or ``None`` without a common seed.

    The difference is first averaged over the pairs at each seed that all these pairs have. The
    interval is then over seeds, so runs that several pairs share do not count several times.
    """
    by_pair: dict[str, dict[int, float]] = {}
    for pair in pairs:
        cell_a, cell_b = pair.cell(a), pair.cell(b)
        if cell_a is None or cell_b is None:
            continue
        a_by_seed, b_by_seed = cell_a.last_by_seed, cell_b.last_by_seed
        if common := a_by_seed.keys() & b_by_seed.keys():
            by_pair[pair.pair] = {seed: a_by_seed[seed] - b_by_seed[seed] for seed in common}
    by_seed = average_by_seed(by_pair.values())
    # The mean over pairs has a finer resolution than the accuracy of one pair.
    step = pairs[0].resolution / math.sqrt(len(by_pair)) if by_pair else 0.0
    difference = mean_difference(by_seed.values(), step)
    return AverageDifference(a, b, tuple(by_pair), by_seed, difference) if difference else None


def average_gains(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[AverageDifference]:
    """Return each method's average gain over the student alone, largest first."""
    gains = (average_difference(pairs, method, CONTROL) for method in methods if method != CONTROL)
    return sorted((gain for gain in gains if gain), key=lambda gain: -gain.difference.mean)


def headline(
    pairs: Sequence[PairFinding], methods: Sequence[str], frames: Frames, margin: float
) -> list[str]:
    """Return the summary as paragraphs, the most important first.

    They give the verdicts on the published values, the best method and its uncertainty, what SKD
    adds to each baseline, and the reservations.
    """
    doubtful = _doubtful_teachers(frames)
    if not any(state.outcome == "done" for state in frames.run_states.values()):
        nothing = "No run has finished yet, so there are no results."
        return [nothing, *doubtful, *_unpublished_skd(pairs)]
    return [
        *_verdicts(pairs, margin),
        *doubtful,
        *_best(pairs, methods),
        *_skd_gains(pairs, methods),
        *_unchanged_teachers(frames),
        *_unpublished_skd(pairs),
        *_mixed_teachers(pairs),
        *code_sentences(frames.runs),
        *_collapsed(frames),
    ]


def verdict_counts(pairs: Sequence[PairFinding]) -> dict[str, int]:
    """Return the number of published cells by verdict; a cell shared by pairs counts once."""
    judged = _judged(pairs)
    return {kind: sum(cell.verdict.kind == kind for cell in judged) for kind in VERDICT_KINDS}


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
    counts = verdict_counts(pairs)
    total = sum(counts.values())
    if not total:
        return []
    phrases = [f"{counts[kind]} {kind}" for kind in VERDICT_KINDS if counts[kind]]
    lead = (
        f"Of {plural(total, 'published accuracy', 'published accuracies')} of students: "
        f"{join_names(phrases)}, at a margin of {margin:g} points."
    )
    exact = sum(cell.verdict.published_is_exact for cell in _judged(pairs))
    if not exact:
        return [lead]
    return [
        lead,
        f"For {exact} of the published accuracies that were run, the number of published runs is "
        "unstated. These values are treated as exact, so the verdicts higher and lower occur "
        "too often among them.",
    ]


def _best(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[str]:
    averages = average_gains(pairs, methods)
    if CONTROL not in methods:
        return [
            "The study does not train the student alone, so its methods cannot be compared with it."
        ]
    if not averages:
        return [
            "No method can be compared with the student alone yet. The comparison needs finished "
            "runs of both at a seed that all started pairs have in common."
        ]
    covered = {pair for average in averages for pair in average.pairs}
    ranked = _rankable(averages, covered)
    if not ranked:
        return ["No method has finished in all pairs yet, so no method is ranked; see the table."]
    best, gain, total = ranked[0], ranked[0].difference, len(pairs)
    if len(ranked) == 1:
        claim = f"{best.a}, the only ranked method, differs from the student alone by"
    elif gain.mean > 0:
        claim = f"{best.a} has the largest mean gain over the student alone:"
    else:
        claim = f"no ranked method is better than the student alone; {best.a} is the closest:"
    lead = (
        f"Averaged over {_pairs(len(covered), total)}, {claim} {signed(gain.mean)} points "
        f"of top-1 accuracy at the last epoch ({_interval(gain)})."
    )
    sentences = [_against_control(gain)]
    if len(ranked) > 1:
        sentences.append(_against_next(best, ranked[1]))
    in_all_pairs = {m for m in methods if all(pair.cell(m) is not None for pair in pairs)}
    excluded = {average.a for average in averages if average not in ranked}
    not_ranked = [method for method in methods if method in excluded]
    for reason, names in (
        ("because runs are not finished", [m for m in not_ranked if m in in_all_pairs]),
        ("because not every pair has them", [m for m in not_ranked if m not in in_all_pairs]),
    ):
        if names:
            sentences.append(f"Not ranked {reason}: {join_names(names)}.")
    return [lead, " ".join(sentences)]


def _skd_gains(pairs: Sequence[PairFinding], methods: Sequence[str]) -> list[str]:
    phrases = []
    for baseline in methods:
        combined = with_skd(baseline, methods)
        gain = average_difference(pairs, combined, baseline) if combined else None
        if gain:
            phrases.append(f"{baseline} {signed(gain.difference.mean)} ({gain.basis})")
    skd_minus_kd = average_difference(pairs, SKD, "kd") if {SKD, "kd"} <= set(methods) else None
    sentences = []
    if phrases:
        sentences.append(f"Gain from adding SKD to a baseline, in points: {join_names(phrases)}.")
    if skd_minus_kd:
        sentences.append(
            f"SKD minus KD: {signed(skd_minus_kd.difference.mean)} ({skd_minus_kd.basis})."
        )
    return [" ".join(sentences)] if sentences else []


def _doubtful_teachers(frames: Frames) -> list[str]:
    """Name the teachers that are close to chance, or far below the published accuracy."""
    doubts = [
        f"{teacher['name']}: {teacher['doubts']}"
        for teacher in frames.teachers.to_dict("records")
        if teacher["doubts"]
    ]
    if not doubts:
        return []
    return [
        f"Doubtful teachers: {'; '.join(doubts)}. The results of their students do not measure the "
        "methods. Check that the weights, the network and the data set belong together."
    ]


def _unchanged_teachers(frames: Frames) -> list[str]:
    """Warn if no simplifier has changed its teacher: SKD is then the same as KD."""
    last = last_diagnostic_epochs(frames.epochs)
    if last.empty or not last[f"{DIAGNOSTIC_PREFIX}kl_softened_simplified"].max() < UNCHANGED_BELOW:
        return []
    return [
        "No simplifier has changed its teacher by the last epoch (KL from the softened teacher "
        f"below {UNCHANGED_BELOW:g} nats), so SKD is the same as KD in this study."
    ]


def _unpublished_skd(pairs: Sequence[PairFinding]) -> list[str]:
    skd_cells = [cell for pair in pairs for cell in pair.cells if SKD in cell.method.split("+")]
    published = any(cell.published for pair in pairs for cell in pair.cells)
    if skd_cells and published and not any(cell.published for cell in skd_cells):
        return [
            "The SKD paper's own numbers are not available to this project, so no SKD result is "
            "compared with the paper."
        ]
    return []


def _mixed_teachers(pairs: Sequence[PairFinding]) -> list[str]:
    mixed = [pair.pair for pair in pairs if pair.has_mixed_teachers]
    if not mixed:
        return []
    return [
        f"The runs of {join_names(mixed)} had teachers with different weights, so their "
        "comparisons differ in more than the method."
    ]


def _collapsed(frames: Frames) -> list[str]:
    if not (n := len(collapsed_runs(frames))):
        return []
    return [
        f"In {plural(n, 'run')} the simplified teacher collapsed. Such a run measures the cost of "
        "a collapse, not the method."
    ]


def _rankable(averages: list[AverageDifference], covered: set[str]) -> list[AverageDifference]:
    """Return the methods that can be ranked.

    A method is excluded if it lacks pairs, or has only one seed while others have an interval.
    """
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
    if gain.excludes_zero is None:
        return "With one seed, the difference cannot be tested."
    if not gain.excludes_zero:
        return "The interval includes zero: the difference is not significant."
    return "The interval excludes zero: the difference is significant."


def _against_next(best: AverageDifference, second: AverageDifference) -> str:
    seeds = best.by_seed.keys() & second.by_seed.keys()
    ahead = mean_difference(best.by_seed[s] - second.by_seed[s] for s in sorted(seeds))
    if ahead is None or ahead.excludes_zero is None:
        return f"The second best is {second.a}; there are too few common seeds to compare the two."
    verdict = "significant" if ahead.excludes_zero else "not significant"
    return (
        f"The difference from the second best, {second.a}, is {signed(ahead.mean)} "
        f"({interval(ahead)}): {verdict} on these pairs, without a correction for choosing the two "
        "methods."
    )
