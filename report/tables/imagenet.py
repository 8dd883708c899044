"""ImageNet's published values, beside what has been run."""

from __future__ import annotations

from collections.abc import Mapping

from report.formats import number, published_text
from report.literature import Key, PublishedValue
from report.tables.model import Column, Entry, Table


def imagenet_table(published: Mapping[Key, PublishedValue], study: str | None) -> Table:
    """Return the published values; ``study`` is the one here that has runs to compare, if any."""
    verdict = Entry("not run", tone="not run") if study is None else Entry(f"see study {study}")
    return Table(
        key="imagenet",
        title="ImageNet",
        caption="Published top-1 and top-5 accuracy in percent for the field's two usual pairs. "
        "Which of them the SKD paper used is not known.",
        columns=(
            Column("Pair", number=False),
            Column("Method", number=False),
            Column("Published top-1"),
            Column("Published top-5"),
            Column("Verdict", number=False),
        ),
        rows=tuple(
            (
                Entry(f"{value.teacher} → {value.student}"),
                Entry(value.method),
                Entry(published_text(value), hint=value.source),
                Entry(number(value.top5)),
                verdict,
            )
            for value in published.values()
        ),
    )
