"""What SKD's open choices do: the ablation, and the temperature."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, mean_and_sd, p_value, signed, value_text
from report.frames.cells import SKD, PairFinding
from report.frames.method_variants import MethodVariant, method_variants, temperature_groups
from report.statistics.paired_tests import MethodComparison
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.expansion import Expansion


def ablation_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return a row a (pair, variant of SKD), or none without variants."""
    rows = []
    for pair in pairs:
        found = method_variants(expansion, pair.teacher.name, pair.student, SKD)
        base = pair.cell(SKD)
        if not found or base is None:
            continue
        rows.append(
            (
                TableEntry(pair.pair),
                TableEntry(SKD, detail="this study's settings", link=base.anchor),
                TableEntry(ABSENT),
                TableEntry(mean_and_sd(base.last), sort=base.last.mean),
                TableEntry("reference", sort=0.0),
                TableEntry(ABSENT),
            )
        )
        rows += [_variant(pair, variant) for variant in found]
    if not rows:
        return None
    return ReportTable(
        key="ablation",
        title="SKD's open choices",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds; difference from SKD as this study sets it, paired by seed, with its 95 % "
        "interval and p-value, by Holm's correction for all comparisons of the pair (bold: below "
        "0.05, for better or worse). A1 to A8 are this project's assumptions, not the paper's.",
        columns=(
            TableColumn("Pair", number=False, filter=True),
            TableColumn("Method", number=False),
            TableColumn("Assumption", number=False, filter=True),
            TableColumn("Last epoch"),
            TableColumn("Minus SKD"),
            TableColumn("p, Holm"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def temperature_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return accuracies by temperature, a row a group of methods that differ in it alone."""
    rows, seen = (
        [],
        sorted(
            {
                T
                for pair in pairs
                for group in pair_temperature_groups(expansion, pair)
                for T in group
            }
        ),
    )
    for pair in pairs:
        for group in pair_temperature_groups(expansion, pair):
            cells = {T: pair.cell(method) for T, method in group.items()}
            rows.append(
                (
                    TableEntry(pair.pair),
                    TableEntry(", ".join(group.values())),
                    *(
                        TableEntry(
                            mean_and_sd(cells[T].last),
                            sort=cells[T].last.mean,
                            link=cells[T].anchor,
                        )
                        if T in cells
                        else TableEntry(ABSENT)
                        for T in seen
                    ),
                )
            )
    if not rows:
        return None
    return ReportTable(
        key="temperature",
        title="Sensitivity to the temperature",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds, of methods that differ in nothing but T (of softening and loss alike).",
        columns=(
            TableColumn("Pair", number=False),
            TableColumn("Methods", number=False),
            *(TableColumn(f"T = {T:g}") for T in seen),
        ),
        rows=tuple(rows),
    )


def pair_temperature_groups(expansion: Expansion, pair: PairFinding) -> list[dict[float, str]]:
    """Return a pair's groups of methods that differ in temperature alone."""
    return temperature_groups(expansion, pair.teacher.name, pair.student)


def variant_changes_text(variant: MethodVariant) -> str:
    """Return what a variant sets otherwise than the method it varies."""
    if not variant.changes:
        return "nothing differs"
    return "; ".join(
        f"{part}: {setting} {value_text(value)} instead of {value_text(usual)}"
        for part, setting, usual, value in variant.changes
    )


def _variant(pair: PairFinding, variant: MethodVariant) -> tuple[TableEntry, ...]:
    cell = pair.cell(variant.method)
    found: MethodComparison | None = pair.compared(variant.method, SKD)
    marks = tuple((mark.kind, mark.text) for mark in cell.marks) if cell else ()
    return (
        TableEntry(pair.pair),
        TableEntry(
            variant.method, detail=variant_changes_text(variant), link=cell.anchor if cell else ""
        ),
        TableEntry(", ".join(variant.assumptions) or ABSENT),
        TableEntry(
            mean_and_sd(cell.last) if cell else ABSENT,
            sort=cell.last.mean if cell else None,
            marks=marks,
        ),
        TableEntry(
            signed(found.difference.mean) if found else ABSENT,
            detail=interval(found.difference) if found else "",
            sort=found.difference.mean if found else None,
        ),
        TableEntry(
            p_value(found.p_holm) if found else ABSENT,
            sort=found.p_holm if found else None,
            tone="best" if found and found.significant else "",
        ),
    )
