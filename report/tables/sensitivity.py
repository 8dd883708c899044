"""What SKD's open choices do: the ablation, and the temperature."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import ABSENT, interval, p_value, signed, spread, value_text
from report.frames.cells import SKD, PairFinding
from report.frames.settings import Variant, by_temperature, variants
from report.statistics.comparisons import MethodComparison
from report.table_model import Column, Entry, Table
from skd.study.expansion import Expansion


def ablation_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> Table | None:
    """Return a row a (pair, variant of SKD), or none without variants."""
    rows = []
    for pair in pairs:
        found = variants(expansion, pair.teacher.name, pair.student, SKD)
        base = pair.cell(SKD)
        if not found or base is None:
            continue
        rows.append(
            (
                Entry(pair.pair),
                Entry(SKD, detail="this study's settings", link=base.anchor),
                Entry(ABSENT),
                Entry(spread(base.last), sort=base.last.mean),
                Entry("reference", sort=0.0),
                Entry(ABSENT),
            )
        )
        rows += [_variant(pair, variant) for variant in found]
    if not rows:
        return None
    return Table(
        key="ablation",
        title="SKD's open choices",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds; difference from SKD as this study sets it, paired by seed, with its 95 % "
        "interval and p-value, by Holm's correction for all comparisons of the pair (bold: below "
        "0.05, for better or worse). A1 to A8 are this project's assumptions, not the paper's.",
        columns=(
            Column("Pair", number=False, filter=True),
            Column("Method", number=False),
            Column("Assumption", number=False, filter=True),
            Column("Last epoch"),
            Column("Minus SKD"),
            Column("p, Holm"),
        ),
        rows=tuple(rows),
        interactive=True,
    )


def temperature_table(expansion: Expansion, pairs: Sequence[PairFinding]) -> Table | None:
    """Return accuracies by temperature, a row a group of methods that differ in it alone."""
    rows, seen = (
        [],
        sorted({T for pair in pairs for group in groups(expansion, pair) for T in group}),
    )
    for pair in pairs:
        for group in groups(expansion, pair):
            cells = {T: pair.cell(method) for T, method in group.items()}
            rows.append(
                (
                    Entry(pair.pair),
                    Entry(", ".join(group.values())),
                    *(
                        Entry(spread(cells[T].last), sort=cells[T].last.mean, link=cells[T].anchor)
                        if T in cells
                        else Entry(ABSENT)
                        for T in seen
                    ),
                )
            )
    if not rows:
        return None
    return Table(
        key="temperature",
        title="Sensitivity to the temperature",
        caption="Top-1 accuracy in percent at the last epoch, mean ± sample standard deviation "
        "over seeds, of methods that differ in nothing but T (of softening and loss alike).",
        columns=(
            Column("Pair", number=False),
            Column("Methods", number=False),
            *(Column(f"T = {T:g}") for T in seen),
        ),
        rows=tuple(rows),
    )


def groups(expansion: Expansion, pair: PairFinding) -> list[dict[float, str]]:
    """Return a pair's groups of methods that differ in temperature alone."""
    return by_temperature(expansion, pair.teacher.name, pair.student)


def changes_text(variant: Variant) -> str:
    """Return what a variant sets otherwise than the method it varies."""
    if not variant.changes:
        return "nothing differs"
    return "; ".join(
        f"{part}: {setting} {value_text(value)} instead of {value_text(usual)}"
        for part, setting, usual, value in variant.changes
    )


def _variant(pair: PairFinding, variant: Variant) -> tuple[Entry, ...]:
    cell = pair.cell(variant.method)
    found: MethodComparison | None = pair.compared(variant.method, SKD)
    marks = tuple((mark.kind, mark.text) for mark in cell.marks) if cell else ()
    return (
        Entry(pair.pair),
        Entry(variant.method, detail=changes_text(variant), link=cell.anchor if cell else ""),
        Entry(", ".join(variant.assumptions) or ABSENT),
        Entry(
            spread(cell.last) if cell else ABSENT,
            sort=cell.last.mean if cell else None,
            marks=marks,
        ),
        Entry(
            signed(found.difference.mean) if found else ABSENT,
            detail=interval(found.difference) if found else "",
            sort=found.difference.mean if found else None,
        ),
        Entry(
            p_value(found.p_holm) if found else ABSENT,
            sort=found.p_holm if found else None,
            tone="best" if found and found.significant else "",
        ),
    )
