"""Methods of one pair compared with each other, seed by seed, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from report.statistics.intervals import Difference, holm, paired_difference

ALPHA = 0.05


@dataclass(frozen=True)
class MethodComparison:
    """Method a minus method b on one pair, at the last epoch.

    Attributes:
        p: of the paired t test; none of one common seed.
        p_holm: the same, corrected for all comparisons of the pair (Holm 1979).
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
    """Return every two methods' comparison over their common seeds, Holm-corrected together.

    Args:
        pair: how it is written.
        accuracy: last-epoch top-1 by method, then seed.
        resolution: the step between possible accuracies, 100 over the number of images.
    """
    found = [
        (a, b, difference)
        for a, b in combinations(accuracy, 2)
        if (difference := paired_difference(accuracy[a], accuracy[b], resolution)) is not None
    ]
    tested = [place for place, (_, _, difference) in enumerate(found) if difference.p is not None]
    adjusted = dict(zip(tested, holm([found[place][2].p for place in tested]), strict=True))
    return tuple(
        MethodComparison(pair, a, b, difference, difference.p, adjusted.get(place))
        for place, (a, b, difference) in enumerate(found)
    )


def best_method(
    means: Mapping[str, float | None], comparisons: Iterable[MethodComparison]
) -> str | None:
    """Return the method of the largest mean if it leads each other one significantly, or none.

    It must lead over the common seeds too, which may be fewer than those of its mean. Since all
    comparisons of the pair are corrected together, choosing the best afterwards is too.
    """
    known = {method: mean for method, mean in means.items() if mean is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda method: known[method])
    against = [found for found in comparisons if best in (found.a, found.b)]
    ahead = [found if found.a == best else found.reversed() for found in against]
    led = {found.b for found in ahead if found.significant and found.difference.mean > 0}
    return best if led == known.keys() - {best} else None
