"""What a study's records and cards state, against the files beside them. Imports no torch."""

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
    """What came of it.

    Attributes:
        runs: what contradicts the records of runs, by identity; of those where something does.
        teachers: likewise the cards of teachers.
        finished: runs with a record.
        unchecked: those of them whose logits no analysis has seen.
    """

    runs: Mapping[str, tuple[str, ...]]
    teachers: Mapping[str, tuple[str, ...]]
    finished: int
    unchecked: int

    def lines(self, expansion: Expansion) -> Iterator[str]:
        """Yield a line for each run and teacher that its files contradict, by its name."""
        for node in expansion.teachers:
            if node.id in self.teachers:
                yield f"Teacher {node.name} ({node.id}): {'; '.join(self.teachers[node.id])}"
        told = set()
        for cell in expansion.cells:
            for seed, identity in cell.runs.items():
                if identity in self.runs and identity not in told:
                    told.add(identity)
                    said = "; ".join(self.runs[identity])
                    yield f"{cell.key} seed {seed} (run {identity}): {said}"


def check_store(analysis: Analysis | None, expansion: Expansion, store: Store) -> RecordChecks:
    """Check what a store states of a study; what cannot be read is others' to tell."""
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
    """Check what is stated against what an analysis found in the files.

    Args:
        analysis: of the study; none where there is none.
        records: of finished runs, by identity.
        cards: of teachers at hand, by identity.
    """
    altered = analysis.altered if analysis else {}
    runs, teachers, unchecked = {}, {}, 0
    for identity, record in records.items():
        measured = analysis.runs.get(identity) if analysis else None
        if _seen(measured, record.files.get(LOGITS_FILE)):
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


def _seen(measured: Measures | None, logits: str | None) -> bool:
    """Return whether an analysis has seen the logits of this very record."""
    return measured is not None and measured.possible is not None and measured.logits == logits


def _with_files(
    found: Mapping[str, list[str]],
    altered: Mapping[str, tuple[str, ...]],
    stated: Mapping[str, Record | TeacherCard],
) -> dict[str, tuple[str, ...]]:
    """Return what contradicts each, its altered files included; of those where something does."""
    everything = {
        identity: (
            *found.get(identity, ()),
            *(f"{name} is not the recorded file" for name in altered.get(identity, ())),
        )
        for identity in stated
    }
    return {identity: said for identity, said in everything.items() if said}
