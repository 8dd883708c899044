"""Paired comparisons of the methods of one pair, corrected for multiple testing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from report.statistics.intervals import ALPHA, Difference, holm, paired_difference


@dataclass(frozen=True)
class MethodComparison:
    """Method a minus method b on one pair, at the last epoch.

    Attributes:
        p: p-value of the paired t test; ``None`` for one common seed.
        p_holm: ``p`` corrected for all comparisons of the pair (Holm 1979).
    """

    pair: str
    a: str
    b: str
    difference: Difference
    p: float | None
    p_holm: float | None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.p_holm is not None and self.p_holm < ALPHA

    def reversed(self) -> MethodComparison:
        """Return b minus a."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=replace(self.difference, mean=-self.difference.mean),
        )


def compare_methods(
    pair: str, accuracy: Mapping[str, Mapping[int, float]], resolution: float = 0.0
) -> tuple[MethodComparison, ...]:
    """Compare every two methods over their common seeds, with Holm's correction over all.

    Args:
        pair: the pair's label.
        accuracy: last-epoch top-1 by method, then by seed.
        resolution: the step between possible accuracies, 100 over the number of images.
    """
    differences = [
        (a, b, difference)
        for a, b in combinations(accuracy, 2)
        if (difference := paired_difference(accuracy[a], accuracy[b], resolution)) is not None
    ]
    tested = [i for i, (_, _, difference) in enumerate(differences) if difference.p is not None]
    adjusted = dict(zip(tested, holm([differences[i][2].p for i in tested]), strict=True))
    return tuple(
        MethodComparison(pair, a, b, difference, difference.p, adjusted.get(i))
        for i, (a, b, difference) in enumerate(differences)
    )


def best_method(
    means: Mapping[str, float | None], comparisons: Iterable[MethodComparison]
) -> str | None:
    """Return the method with the largest mean if it is significantly better than every other.

    It must also be better over the common seeds, which may be fewer than the seeds of its mean.
    The correction covers all comparisons of the pair, so it also covers choosing the best method
    after the fact. Returns ``None`` if no method is best.
    """
    known = {method: mean for method, mean in means.items() if mean is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda method: known[method])
    of_best = [comparison for comparison in comparisons if best in (comparison.a, comparison.b)]
    best_first = [c if c.a == best else c.reversed() for c in of_best]
    worse = {c.b for c in best_first if c.significant and c.difference.mean > 0}
    return best if worse == known.keys() - {best} else None
