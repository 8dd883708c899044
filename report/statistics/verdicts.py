"""What the report says of a published number: reproduced, higher, lower, inconclusive, not run.

Let d be our mean minus the published value, in points. By two one-sided tests at 5 % (TOST,
Schuirmann 1987), the number is *reproduced* within a margin if the 90 % interval of d lies within
± margin. Failing that, ours is *higher* or *lower* if the 95 % interval of d excludes zero, and
*inconclusive* otherwise. Like is compared with like: a published last epoch with our last, a best
one with our best, an unstated one with both.

A published value is itself the mean of some runs. As far as that is known, its uncertainty counts:

- sd and number of runs k published: Welch's standard error √(s²/n + s_p²/k) and degrees of freedom;
- only k published: our s for both sides, √(s²·(1/n + 1/k)), with n − 1 degrees of freedom, exact if
  the two sides vary alike;
- neither: the value is taken as exact, √(s²/n), and the verdict says so. Were it one run, a gap of
  two standard deviations would be chance.

s² is the sample variance and that of the accuracies' own step (`Summary.se`).
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
    """Ours beside the published value at one epoch.

    Attributes:
        epoch: last or best.
        difference: ours minus published, in points; none where nothing has run.
        kind: the verdict at this epoch.
        least_margin: the smallest margin at which it counts as reproduced; none without interval.
        more_seeds: how many more seeds would decide, mean and spread staying as they are; none
            where it is decided, cannot be told, or no number of seeds would do.
    """

    epoch: Literal["last", "best"]
    difference: Difference | None
    kind: VerdictKind
    least_margin: float | None
    more_seeds: int | None


@dataclass(frozen=True)
class Verdict:
    """The verdict on one published value, and what it rests on.

    Attributes:
        kind: of all comparisons together; where they disagree, inconclusive.
        comparisons: one, or for an unstated epoch two: last, then best.
        more_seeds: as of a comparison; so many that all comparisons are decided, and agree.
        remarks: what a reader must know of it.
    """

    published: PublishedValue
    kind: VerdictKind
    comparisons: tuple[EpochComparison, ...]
    more_seeds: int | None
    remarks: tuple[str, ...]

    @property
    def published_is_exact(self) -> bool:
        """Whether the published value's own uncertainty is not known, and so left out."""
        return self.kind != "not run" and self.published.n_runs is None

    @property
    def least_margin(self) -> float | None:
        """The smallest margin at which the value counts as reproduced at every epoch compared."""
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
        best: the same at the best epoch.
        published: the value and its protocol.
        margin: of equivalence, in points.
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
    """Return ours minus published with its standard error, as the module's text says."""
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
    """Return the verdict on one difference; without an interval it is inconclusive."""
    if difference is None:
        return "not run"
    wide = difference.interval()
    if wide is None:
        return "inconclusive"
    if difference.within(margin):
        return "reproduced"
    if wide[0] > 0:
        return "higher"
    return "lower" if wide[1] < 0 else "inconclusive"


def more_seeds_needed(
    ours: Sequence[Summary], published: PublishedValue, margin: float
) -> int | None:
    """Return how many more seeds would decide, if means and spreads stay as they are.

    None without a spread, and where not even 1,000 seeds would give all of ours one verdict: the
    published value's own uncertainty may be too large, or last and best epoch may differ.
    """
    if any(one.sd is None for one in ours):
        return None
    for more in range(1, MAX_SEEDS_TRIED - max(one.n for one in ours) + 1):
        grown = [replace(one, n=one.n + more) for one in ours]
        kinds = {verdict_kind(difference_from_published(one, published), margin) for one in grown}
        if len(kinds) == 1 and "inconclusive" not in kinds:
            return more
    return None


def _remarks(comparisons: Sequence[EpochComparison], published: PublishedValue) -> tuple[str, ...]:
    remarks = []
    if comparisons[0].difference is not None:
        if comparisons[0].difference.se is None:
            remarks.append("one seed, no interval")
        if len(comparisons) > 1:
            said = " and ".join(f"{c.epoch}: {c.kind}" for c in comparisons)
            remarks.append(f"published epoch unstated; compared with both ({said})")
        if published.n_runs is None:
            remarks.append("published runs unstated; the value is taken as exact")
        elif published.sd is None or published.n_runs == 1:
            runs = "one run" if published.n_runs == 1 else f"a mean of {published.n_runs} runs"
            remarks.append(f"published value is {runs}, spread unstated; ours is used for both")
        elif min(published.n_runs, comparisons[0].difference.n) == 2:
            remarks.append("two runs on a side: Welch's interval is a little too narrow")
    return tuple(remarks)
