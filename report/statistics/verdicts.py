"""Verdicts on published values: reproduced, higher, lower, inconclusive, not run.

Let d be our mean minus the published value, in points. The value is *reproduced* within a margin if
the 90 % interval of d is within ± margin, which is the result of two one-sided tests at 5 % (TOST,
Schuirmann 1987). Otherwise ours is *higher* or *lower* if the 95 % interval of d excludes zero, and
*inconclusive* if it includes zero. A published last epoch is compared with our last epoch, a best
epoch with our best, and an unstated epoch with both.

A published value is the mean of k runs. Its uncertainty counts as far as it is known:

- standard deviation s_p and k published: Welch's standard error √(s²/n + s_p²/k) and degrees of
  freedom;
- only k published: our s for both sides, √(s²·(1/n + 1/k)), with n − 1 degrees of freedom. This is
  exact if both sides have the same variance;
- neither published: the value is treated as exact, √(s²/n), and the verdict says so. If it were one
  run, a difference of two standard deviations could be chance.

s² is the sample variance plus the rounding variance of the accuracies (`Summary.se`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from report.statistics.intervals import EQUIVALENCE_CONFIDENCE, Difference, Summary, summarise
from skd.study.published import PublishedValue

VerdictKind = Literal["reproduced", "higher", "lower", "inconclusive", "not run"]
VERDICT_KINDS: tuple[VerdictKind, ...] = (
    "reproduced",
    "higher",
    "lower",
    "inconclusive",
    "not run",
)
DEFAULT_MARGIN = 0.5  # points of top-1 accuracy
MAX_SEEDS_TRIED = 1000


@dataclass(frozen=True)
class EpochComparison:
    """Ours compared with the published value at one epoch.

    Attributes:
        epoch: last or best.
        difference: ours minus published, in points; ``None`` if no run has finished.
        kind: the verdict at this epoch.
        least_margin: the smallest margin at which the value is reproduced; ``None`` without an
            interval.
        more_seeds: number of additional seeds that would decide, if mean and standard deviation
            stay the same; ``None`` if it is decided, not computable, or above the limit.
    """

    epoch: Literal["last", "best"]
    difference: Difference | None
    kind: VerdictKind
    least_margin: float | None
    more_seeds: int | None


@dataclass(frozen=True)
class Verdict:
    """The verdict on one published value, with its comparisons.

    Attributes:
        kind: the verdict of all comparisons; inconclusive if they disagree.
        comparisons: one; or two (last, then best) if the published epoch is unstated.
        more_seeds: number of additional seeds after which all comparisons are decided and agree.
        remarks: reservations that a reader must know.
    """

    published: PublishedValue
    kind: VerdictKind
    comparisons: tuple[EpochComparison, ...]
    more_seeds: int | None
    remarks: tuple[str, ...]

    @property
    def published_is_exact(self) -> bool:
        """Whether the published value's uncertainty is unknown and therefore ignored."""
        return self.kind != "not run" and self.published.n_runs is None

    @property
    def least_margin(self) -> float | None:
        """The smallest margin at which the value is reproduced at every epoch compared."""
        margins = [comparison.least_margin for comparison in self.comparisons]
        known = [margin for margin in margins if margin is not None]
        return max(known) if known and len(known) == len(margins) else None


def judge_published(
    last: Sequence[float],
    best: Sequence[float],
    published: PublishedValue,
    margin: float = DEFAULT_MARGIN,
    resolution: float = 0.0,
) -> Verdict:
    """Return the verdict on a published value.

    Args:
        last: our top-1 at the last epoch of each finished run, in percent.
        best: our top-1 at the best epoch of each finished run, in percent.
        published: the value and its protocol.
        margin: margin of equivalence, in points.
        resolution: the step between possible accuracies, in points.
    """
    values = {"last": summarise(last, resolution), "best": summarise(best, resolution)}
    epochs = ("last", "best") if published.reported_epoch == "unstated" else None
    comparisons = tuple(
        compare_at_epoch(epoch, values[epoch], published, margin)
        for epoch in epochs or (published.reported_epoch,)
    )
    kinds = {comparison.kind for comparison in comparisons}
    kind = kinds.pop() if len(kinds) == 1 else "inconclusive"
    more = None
    if kind == "inconclusive":
        more = more_seeds_needed([values[c.epoch] for c in comparisons], published, margin)
    return Verdict(published, kind, comparisons, more, _remarks(comparisons, published))


def compare_at_epoch(
    epoch: Literal["last", "best"], ours: Summary, published: PublishedValue, margin: float
) -> EpochComparison:
    """Return the comparison at one epoch."""
    difference = difference_from_published(ours, published)
    kind = verdict_kind(difference, margin)
    bounds = difference.interval(EQUIVALENCE_CONFIDENCE) if difference else None
    least = None if bounds is None else max(abs(bounds[0]), abs(bounds[1]))
    more = None
    if kind == "inconclusive":
        more = more_seeds_needed([ours], published, margin)
    return EpochComparison(epoch, difference, kind, least, more)


def difference_from_published(ours: Summary, published: PublishedValue) -> Difference | None:
    """Return ours minus published with its standard error (see the module's docstring)."""
    if ours.mean is None:
        return None
    mean = ours.mean - published.top1
    if ours.se is None:
        return Difference(1, mean, None, None)
    own = ours.se**2
    if published.n_runs is None:
        return Difference(ours.n, mean, ours.se, ours.n - 1)
    if published.sd is None or published.n_runs == 1:
        se = math.sqrt(own + own * ours.n / published.n_runs)
        return Difference(ours.n, mean, se, ours.n - 1)
    theirs = published.sd**2 / published.n_runs
    total = own + theirs
    if total == 0:
        return Difference(ours.n, mean, 0.0, ours.n - 1)
    df = total**2 / (own**2 / (ours.n - 1) + theirs**2 / (published.n_runs - 1))
    return Difference(ours.n, mean, math.sqrt(total), df)


def verdict_kind(difference: Difference | None, margin: float) -> VerdictKind:
    """Return the verdict on one difference: inconclusive without an interval."""
    if difference is None:
        return "not run"
    wide = difference.interval()
    if wide is None:
        return "inconclusive"
    if difference.is_within(margin):
        return "reproduced"
    if wide[0] > 0:
        return "higher"
    return "lower" if wide[1] < 0 else "inconclusive"


def more_seeds_needed(
    ours: Sequence[Summary], published: PublishedValue, margin: float
) -> int | None:
    """Return how many more seeds would decide, if means and standard deviations stay the same.

    ``None`` without a standard deviation, and if `MAX_SEEDS_TRIED` seeds would not give all of ours
    the same verdict: the published value's uncertainty may be too large, or the last and the best
    epoch may differ.
    """
    if any(summary.sd is None for summary in ours):
        return None
    for more in range(1, MAX_SEEDS_TRIED - max(summary.n for summary in ours) + 1):
        grown = [replace(summary, n=summary.n + more) for summary in ours]
        kinds = {
            verdict_kind(difference_from_published(summary, published), margin) for summary in grown
        }
        if len(kinds) == 1 and "inconclusive" not in kinds:
            return more
    return None


def _remarks(comparisons: Sequence[EpochComparison], published: PublishedValue) -> tuple[str, ...]:
    remarks = []
    if comparisons[0].difference is not None:
        if comparisons[0].difference.se is None:
            remarks.append("one seed, no interval")
        if len(comparisons) > 1:
            verdicts = " and ".join(f"{c.epoch}: {c.kind}" for c in comparisons)
            remarks.append(f"published epoch unstated; compared with both ({verdicts})")
        if published.n_runs is None:
            remarks.append("number of published runs unstated; the value is treated as exact")
        elif published.sd is None or published.n_runs == 1:
            runs = "one run" if published.n_runs == 1 else f"a mean of {published.n_runs} runs"
            remarks.append(
                f"published value is {runs}, standard deviation unstated; ours is used for both"
            )
        elif min(published.n_runs, comparisons[0].difference.n) == 2:
            remarks.append("only two runs on one side: Welch's interval is slightly too narrow")
    return tuple(remarks)
