"""Check a study's records and cards against the files beside them. Does not import torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skd.analyses.measure_bounds import contradictions
from skd.analyses.records import Analysis, Measures
from skd.store.records import Record, TeacherCard
from skd.store.store import Store, StoreError
from skd.study.expansion import Expansion

LOGITS_FILE = "test_logits.safetensors"


@dataclass(frozen=True)
class RecordChecks:
    """The results of the checks.

    Attributes:
        runs: contradictions to the records of runs, by identity; only runs with contradictions.
        teachers: contradictions to the cards of teachers, by identity; only teachers with some.
        finished: number of runs with a record.
        unchecked: number of these runs whose logits no analysis has read.
    """

    runs: Mapping[str, tuple[str, ...]]
    teachers: Mapping[str, tuple[str, ...]]
    finished: int
    unchecked: int

    def lines(self, expansion: Expansion) -> Iterator[str]:
        """Yield a line with the contradictions to each run and teacher."""
        for node in expansion.teachers:
            if node.id in self.teachers:
                yield f"Teacher {node.name} ({node.id}): {'; '.join(self.teachers[node.id])}"
        listed = set()
        for cell in expansion.cells:
            for seed, identity in cell.runs.items():
                if identity in self.runs and identity not in listed:
                    listed.add(identity)
                    problems = "; ".join(self.runs[identity])
                    yield f"{cell.key} seed {seed} (run {identity}): {problems}"


def check_store(analysis: Analysis | None, expansion: Expansion, store: Store) -> RecordChecks:
    """Check a study's records and cards in a store, except those that cannot be read."""
    records, cards = {}, {}
    for identity in (identity for cell in expansion.cells for identity in cell.runs.values()):
        with contextlib.suppress(StoreError):
            if (record := store.run(identity).record()) is not None:
                records[identity] = record
    for node in expansion.teachers:
        with contextlib.suppress(StoreError):
            if (card := store.teacher(node.id).card()) is not None:
                cards[node.id] = card
    return check_records(analysis, records, cards)


def check_records(
    analysis: Analysis | None, records: Mapping[str, Record], cards: Mapping[str, TeacherCard]
) -> RecordChecks:
    """Check records and cards against an analysis of the files.

    Args:
        analysis: the study's analysis, or ``None``.
        records: records of finished runs, by identity.
        cards: cards of teachers, by identity.
    """
    altered = analysis.altered if analysis else {}
    runs, teachers, unchecked = {}, {}, 0
    for identity, record in records.items():
        measured = analysis.runs.get(identity) if analysis else None
        if _is_of_logits(measured, record.files.get(LOGITS_FILE)):
            runs[identity] = contradictions(record, measured.possible)
        else:
            unchecked += 1
    for identity, card in cards.items():
        measured = analysis.teachers.get(identity) if analysis else None
        if measured is not None and measured.possible is not None:
            teachers[identity] = contradictions(card, measured.possible)
    return RecordChecks(
        runs=_with_files(runs, altered, records),
        teachers=_with_files(teachers, altered, cards),
        finished=len(records),
        unchecked=unchecked,
    )


def _is_of_logits(measured: Measures | None, digest: str | None) -> bool:
    """Return whether measures have bounds and are of the logits with this digest."""
    return measured is not None and measured.possible is not None and measured.logits == digest


def _with_files(
    problems: Mapping[str, list[str]],
    altered: Mapping[str, tuple[str, ...]],
    records: Mapping[str, Record | TeacherCard],
) -> dict[str, tuple[str, ...]]:
    """Add altered files to the problems of each record; return the records with problems."""
    all_problems = {
        identity: (
            *problems.get(identity, ()),
            *(f"{name} is not the recorded file" for name in altered.get(identity, ())),
        )
        for identity in records
    }
    return {identity: texts for identity, texts in all_problems.items() if texts}
