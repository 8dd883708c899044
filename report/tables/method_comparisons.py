"""Methods against each other: what SKD adds to each baseline, all comparisons, variances, ranks."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, mean_and_sd, number, p_equals, p_value, signed
from report.frames.cells import SKD, PairFinding, with_skd
from report.statistics.paired_tests import MethodComparison
from report.statistics.ranks import Ranking
from report.statistics.variance import VarianceSplit
from report.tables.table import ReportTable, TableColumn, TableEntry


def combinations_table(pairs: Sequence[PairFinding], methods: Sequence[str]) -> ReportTable | None:
    """Return a row a (pair, baseline X that has a sum with SKD), or none without such sums."""
    rows = []
    for pair in pairs:
        skd = pair.cell(SKD)
        for baseline in methods:
            both = with_skd(baseline, methods)
            alone, summed = pair.cell(baseline), pair.cell(both) if both else None
            if alone is None or summed is None:
                continue
            rows.append(
                (
                    TableEntry(pair.pair, marks=mixed_mark(pair)),
                    TableEntry(baseline, link=alone.anchor),
                    TableEntry(mean_and_sd(alone.last), sort=alone.last.mean),
                    TableEntry(
                        mean_and_sd(skd.last) if skd else ABSENT,
                        sort=skd.last.mean if skd else None,
                    ),
                    TableEntry(mean_and_sd(summed.last), sort=summed.last.mean, link=summed.anchor),
                    _difference(pair.compared(summed.method, baseline)),
                    _difference(pair.compared(summed.method, SKD)),
                )
            )
    if not rows:
        return None
    return ReportTable(
        key="combinations",
        title="Combinations with SKD",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds: a baseline X, SKD, both together, and what each adds, paired by seed, with "
        "its 95 % interval and p-value, by Holm's correction for all comparisons of the pair. "
        "Bold: p below 0.05, for better or worse.",
        columns=(
            TableColumn("Pair", number=False, filter=True),
            TableColumn("X", number=False, filter=True),
            TableColumn("X alone"),
            TableColumn("SKD alone"),
            TableColumn("SKD+X"),
            TableColumn("SKD+X\nminus X"),
            TableColumn("SKD+X\nminus SKD"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def comparisons_table(pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return every comparison of two methods that has an interval, or none."""
    rows = tuple(
        (
            TableEntry(found.pair, marks=mixed_mark(pair)),
            TableEntry(found.a),
            TableEntry(found.b),
            TableEntry(str(found.difference.n), sort=found.difference.n),
            TableEntry(signed(found.difference.mean), sort=found.difference.mean),
            TableEntry(interval(found.difference)),
            TableEntry(p_value(found.p), sort=found.p),
            TableEntry(
                p_value(found.p_holm), sort=found.p_holm, tone="best" if found.significant else ""
            ),
        )
        for pair in pairs
        for found in pair.comparisons
        if found.p is not None
    )
    if not rows:
        return None
    return ReportTable(
        key="comparisons",
        title="Methods against each other",
        caption="A minus B at the last epoch, in points of top-1 accuracy, paired by seed: mean, "
        "95 % interval, p-value of the paired t test, and the same corrected by Holm for all "
        "comparisons of the pair. Bold: below 0.05.",
        columns=(
            TableColumn("Pair", number=False, filter=True),
            TableColumn("A", number=False, filter=True),
            TableColumn("B", number=False, filter=True),
            TableColumn("Seeds"),
            TableColumn("A minus B"),
            TableColumn("95 % interval"),
            TableColumn("p"),
            TableColumn("p, Holm"),
        ),
        rows=rows,
        interactive=True,
    )


def mixed_mark(pair: PairFinding) -> tuple[tuple[str, str], ...]:
    """Return the mark of a pair whose methods may have had different teachers, or none."""
    return (("mixed", f"{pair.teachers} teachers"),) if pair.has_mixed_teachers else ()


def variance_table(splits: dict[str, VarianceSplit]) -> ReportTable | None:
    """Return where each pair's spread comes from, as standard deviations, or none."""
    if not splits:
        return None
    return ReportTable(
        key="variance",
        title="Where the spread comes from",
        caption="Standard deviations of last-epoch top-1 in points, by a two-way layout of method "
        "and seed. A seed's part is shared by all its methods, so pairing removes it; the last "
        "column is how many unpaired runs one paired run is worth.",
        columns=(
            TableColumn("Pair", number=False),
            TableColumn("Methods"),
            TableColumn("Seeds"),
            TableColumn("Between methods"),
            TableColumn("Shared by a seed"),
            TableColumn("The rest, a run"),
            TableColumn("Worth of pairing"),
        ),
        rows=tuple(
            (
                TableEntry(pair),
                TableEntry(str(split.methods)),
                TableEntry(str(split.seeds)),
                TableEntry(number(split.method**0.5)),
                TableEntry(number(split.seed**0.5)),
                TableEntry(number(split.rest**0.5)),
                TableEntry(number(split.gain_of_pairing, 1)),
            )
            for pair, split in splits.items()
        ),
    )


def ranks_table(ranking: Ranking | None) -> ReportTable | None:
    """Return the mean ranks, or none."""
    if ranking is None:
        return None
    test = f" Friedman's test that all are alike: {p_equals(ranking.p)}." if ranking.p else ""
    return ReportTable(
        key="ranks",
        title="Mean ranks",
        caption="Rank of the mean last-epoch accuracy within a pair, averaged over the "
        f"{ranking.pairs} pairs that have all these methods; 1 is the best. Two methods closer "
        f"than the critical difference of {number(ranking.critical_difference)} are not told "
        f"apart (Nemenyi, 5 %).{test} Both take pairs to be independent; those that share a "
        "teacher or a student are not, so both are somewhat too sure.",
        columns=(TableColumn("Method", number=False), TableColumn("Mean rank")),
        rows=tuple(
            (TableEntry(method), TableEntry(number(rank), sort=rank))
            for method, rank in ranking.ranks.items()
        ),
    )


def _difference(found: MethodComparison | None) -> TableEntry:
    if found is None:
        return TableEntry(ABSENT)
    p = "" if found.p_holm is None else f", {p_equals(found.p_holm)}"
    return TableEntry(
        signed(found.difference.mean),
        detail=interval(found.difference) + p,
        sort=found.difference.mean,
        tone="best" if found.significant else "",
    )
