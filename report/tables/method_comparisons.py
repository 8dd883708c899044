"""The tables that compare methods: combinations with SKD, all comparisons, variances, ranks."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, mean_and_sd, number, p_equals, p_value, signed
from report.frames.cells import SKD, PairFinding, with_skd
from report.frames.without_simplifier import base_of, remainders
from report.names import Names
from report.statistics.paired_tests import MethodComparison
from report.statistics.ranks import Ranking
from report.statistics.variance import VarianceSplit
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.expansion import Expansion


def combinations_table(
    pairs: Sequence[PairFinding], expansion: Expansion, names: Names
) -> ReportTable | None:
    """Return a row for each pair and baseline X that is combined with SKD, or ``None``."""
    rows, methods = [], expansion.methods
    for pair in pairs:
        skd = pair.cell(SKD)
        for baseline in methods:
            name = with_skd(baseline, methods)
            alone, combined = pair.cell(baseline), pair.cell(name) if name else None
            if alone is None or combined is None:
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
                    TableEntry(
                        mean_and_sd(combined.last), sort=combined.last.mean, link=combined.anchor
                    ),
                    _difference(pair.comparison_of(combined.method, baseline)),
                    _difference(pair.comparison_of(combined.method, SKD)),
                )
            )
    if not rows:
        return None
    return ReportTable(
        key="combinations",
        title="Combinations with SKD",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds, of a baseline X, of SKD, and of both together."
        f"{_without_kd(expansion, names)} The differences are paired by seed, with their 95 % "
        "intervals and their p-values after Holm's correction for all comparisons of the pair. "
        "Bold: p below 0.05, in either direction.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("X", number=False, filter=True, holds="method"),
            TableColumn("X alone"),
            TableColumn("SKD alone"),
            TableColumn("SKD+X"),
            TableColumn("SKD+X\nminus X"),
            TableColumn("SKD+X\nminus SKD"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def _without_kd(expansion: Expansion, names: Names) -> str:
    """Return which combinations are X on the simplified teacher, instead of X and SKD's term."""
    combined = [with_skd(method, expansion.methods) for method in expansion.methods]
    kinds = remainders(expansion, [name for name in combined if name])
    return "".join(
        f" {names.method(name)} is {names.method(base_of(name))} on the simplified teacher, "
        "without a KD term."
        for name, kind in kinds.items()
        if kind == "same"
    )


def comparisons_table(pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return every comparison of two methods that has a p-value, or ``None`` without any."""
    rows = tuple(
        _comparison_row(pair, comparison)
        for pair in pairs
        for comparison in pair.comparisons
        if comparison.p is not None
    )
    if not rows:
        return None
    return ReportTable(
        key="comparisons",
        title="Methods against each other",
        caption="A minus B at the last epoch, in points of top-1 accuracy, paired by seed: mean, "
        "95 % interval, p-value of the paired t test, and that p-value after Holm's correction for "
        "all comparisons of the pair. Bold: below 0.05.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("A", number=False, filter=True, holds="method"),
            TableColumn("B", number=False, filter=True, holds="method"),
            TableColumn("Seeds"),
            TableColumn("A minus B"),
            TableColumn("95 % interval"),
            TableColumn("p"),
            TableColumn("p, Holm"),
        ),
        rows=rows,
        interactive=True,
    )


def _comparison_row(pair: PairFinding, comparison: MethodComparison) -> tuple[TableEntry, ...]:
    difference, bold = comparison.difference, "best" if comparison.significant else ""
    return (
        TableEntry(comparison.pair, marks=mixed_mark(pair)),
        TableEntry(comparison.a),
        TableEntry(comparison.b),
        TableEntry(str(difference.n), sort=difference.n),
        TableEntry(signed(difference.mean), sort=difference.mean),
        TableEntry(interval(difference)),
        TableEntry(p_value(comparison.p), sort=comparison.p),
        TableEntry(p_value(comparison.p_holm), sort=comparison.p_holm, tone=bold),
    )


def mixed_mark(pair: PairFinding) -> tuple[tuple[str, str], ...]:
    """Return the mark of a pair whose runs had different teachers; empty for other pairs."""
    return (("mixed", f"{pair.num_teachers} teachers"),) if pair.has_mixed_teachers else ()


def variance_table(splits: dict[str, VarianceSplit]) -> ReportTable | None:
    """Return each pair's variance components as standard deviations, or ``None`` without any."""
    if not splits:
        return None
    return ReportTable(
        key="variance",
        title="Where the spread comes from",
        caption="Standard deviations of last-epoch top-1 in points, from a two-way layout of "
        "method and seed: between the means of the methods, the effect of a seed that all methods "
        "share, and the residual of a single run. Pairing by seed removes the shared effect. "
        "Unpaired runs per paired run: how many runs of each method a comparison needs without "
        "pairing to be as precise as with one paired run of each. It is the variance of shared "
        "effect and residual together, divided by that of the residual.",
        columns=(
            TableColumn("Pair", number=False, holds="pair"),
            TableColumn("Methods"),
            TableColumn("Seeds"),
            TableColumn("Between methods"),
            TableColumn("Shared by a seed"),
            TableColumn("Residual"),
            TableColumn("Unpaired runs\nper paired run"),
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
    """Return the mean ranks, or ``None`` without a ranking."""
    if ranking is None:
        return None
    test = ""
    if ranking.p:
        test = f" Friedman's test that all methods are equal: {p_equals(ranking.p)}."
    return ReportTable(
        key="ranks",
        title="Mean ranks",
        caption="Rank of the mean last-epoch accuracy within a pair, averaged over the "
        f"{ranking.pairs} pairs that have all these methods; 1 is the best. Methods whose ranks "
        f"differ by less than the critical difference of {number(ranking.critical_difference)} are "
        f"not significantly different (Nemenyi, 5 %).{test} These tests assume independent pairs. "
        "Pairs that share a teacher or a student are not independent, so the tests find too many "
        "differences.",
        columns=(TableColumn("Method", number=False, holds="method"), TableColumn("Mean rank")),
        rows=tuple(
            (TableEntry(method), TableEntry(number(rank), sort=rank))
            for method, rank in ranking.ranks.items()
        ),
    )


def _difference(comparison: MethodComparison | None) -> TableEntry:
    if comparison is None:
        return TableEntry(ABSENT)
    p = "" if comparison.p_holm is None else f", {p_equals(comparison.p_holm)}"
    return TableEntry(
        signed(comparison.difference.mean),
        detail=interval(comparison.difference) + p,
        sort=comparison.difference.mean,
        tone="best" if comparison.significant else "",
    )
