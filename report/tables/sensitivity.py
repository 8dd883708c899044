"""The tables of sensitivity to settings: SKD's ablation, the temperature, and other sweeps."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, mean_and_sd, number, p_value, signed, value_text
from report.frames.cells import SKD, PairFinding
from report.frames.method_variants import (
    MethodVariant,
    SettingCurve,
    method_variants,
    setting_curves,
    temperature_groups,
)
from report.statistics.paired_tests import MethodComparison
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.study.expansion import Expansion


def ablation_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return a row for each (pair, variant of SKD), or ``None`` without variants."""
    rows = []
    for pair in pairs:
        variants = method_variants(expansion, pair.teacher.name, pair.student, SKD)
        base = pair.cell(SKD)
        if not variants or base is None:
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
        rows += [_variant(pair, variant) for variant in variants]
    if not rows:
        return None
    return ReportTable(
        key="ablation",
        title="SKD's open choices",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds. The difference from SKD with this study's settings is paired by seed, with "
        "its 95 % interval and its p-value after Holm's correction for all comparisons of the pair "
        "(bold: p below 0.05, in either direction). A1 to A8 are this project's assumptions, not "
        "the paper's.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Method", number=False, holds="method"),
            TableColumn("Assumption", number=False, filter=True),
            TableColumn("Last epoch"),
            TableColumn("Minus SKD"),
            TableColumn("p, Holm"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def temperature_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return accuracies by temperature, or ``None`` if no methods differ only in temperature."""
    groups = [(pair, group) for pair in pairs for group in pair_temperature_groups(expansion, pair)]
    if not groups:
        return None
    temperatures = sorted({T for _, group in groups for T in group})
    return ReportTable(
        key="temperature",
        title="Sensitivity to the temperature",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds, of methods that differ only in the temperature T of softening and loss.",
        columns=(
            TableColumn("Pair", number=False, holds="pair"),
            TableColumn("Methods", number=False, holds="methods"),
            *(TableColumn(f"T = {T:g}") for T in temperatures),
        ),
        rows=tuple(
            (
                TableEntry(pair.pair),
                TableEntry(", ".join(group.values())),
                *(_temperature_entry(pair, group.get(T)) for T in temperatures),
            )
            for pair, group in groups
        ),
    )


def _temperature_entry(pair: PairFinding, method: str | None) -> TableEntry:
    if method is None:
        return TableEntry(ABSENT)
    cell = pair.cell(method)
    return TableEntry(mean_and_sd(cell.last), sort=cell.last.mean, link=cell.anchor)


def sensitivity_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> ReportTable | None:
    """Return a row for each value of a swept setting, or ``None`` if no setting is swept."""
    rows = [
        _curve_point(pair, curve, value, method)
        for pair in pairs
        for curve in pair_setting_curves(expansion, pair)
        for value, method in curve.methods.items()
    ]
    if not rows:
        return None
    return ReportTable(
        key="sensitivity",
        title="Sensitivity to settings",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds, and the mean's 95 % interval, of methods that differ only in the value of one "
        "setting.",
        columns=(
            TableColumn("Pair", number=False, filter=True, holds="pair"),
            TableColumn("Setting", number=False, filter=True),
            TableColumn("Value"),
            TableColumn("Method", number=False, holds="method"),
            TableColumn("Last epoch"),
            TableColumn("95 % interval"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def _curve_point(
    pair: PairFinding, curve: SettingCurve, value: float, method: str
) -> tuple[TableEntry, ...]:
    cell = pair.cell(method)
    bounds = cell.last.interval if cell else None
    return (
        TableEntry(pair.pair),
        TableEntry(curve.label),
        TableEntry(f"{value:g}", sort=value),
        TableEntry(method, link=cell.anchor if cell else ""),
        TableEntry(
            mean_and_sd(cell.last) if cell else ABSENT, sort=cell.last.mean if cell else None
        ),
        TableEntry(f"{number(bounds[0])} to {number(bounds[1])}" if bounds else ABSENT),
    )


def pair_setting_curves(expansion: Expansion, pair: PairFinding) -> list[SettingCurve]:
    """Return a pair's curves over the values of numeric settings."""
    return setting_curves(expansion, pair.teacher.name, pair.student)


def pair_temperature_groups(expansion: Expansion, pair: PairFinding) -> list[dict[float, str]]:
    """Return a pair's groups of methods that differ only in temperature."""
    return temperature_groups(expansion, pair.teacher.name, pair.student)


def variant_changes_text(variant: MethodVariant) -> str:
    """Return the settings in which a variant differs from its base method."""
    if not variant.changes:
        return "no difference"
    return "; ".join(
        f"{part}: {setting} {value_text(value)} instead of {value_text(base)}"
        for part, setting, base, value in variant.changes
    )


def _variant(pair: PairFinding, variant: MethodVariant) -> tuple[TableEntry, ...]:
    cell = pair.cell(variant.method)
    comparison: MethodComparison | None = pair.comparison_of(variant.method, SKD)
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
            signed(comparison.difference.mean) if comparison else ABSENT,
            detail=interval(comparison.difference) if comparison else "",
            sort=comparison.difference.mean if comparison else None,
        ),
        TableEntry(
            p_value(comparison.p_holm) if comparison else ABSENT,
            sort=comparison.p_holm if comparison else None,
            tone="best" if comparison and comparison.significant else "",
        ),
    )
