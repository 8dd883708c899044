"""Tidy frames of a study: what is expected, joined with what the store holds now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.frames.code_columns import CODE_COLUMNS, code_values
from report.frames.run_state import RunState, read_run_state, with_relative_paths
from skd.code.accepted import Acceptance, read_acceptances
from skd.store.records import Record, TeacherCard
from skd.store.stale import code_changes_of, files_text
from skd.store.store import Store, StoreError
from skd.store.teacher_accuracy import accuracy_doubts
from skd.study.expansion import Expansion, TeacherNode

RUN_COLUMNS = [
    "pair",
    "teacher",
    "teacher_network",
    "student",
    "method",
    "seed",
    "id",
    "shared",
    "outcome",
    "reason",
    "last_epoch",
    "last_top1",
    "last_top5",
    "best_epoch",
    "best_top1",
    "best_top5",
    "collapsed",
    "collapse_reason",
    "collapse_epoch",
    "seconds",
    "seconds_per_epoch",
    "seconds_per_step",
    "images_per_second",
    "gpu_utilisation",
    "peak_memory_bytes",
    "parameters",
    "extra_parameters",
    "extra_memory_bytes",
    "multiply_adds",
    "sessions",
    "teacher_sha256",
    "device",
    "torch",
    "git_commit",
    "git_clean",
    "sources",
    *CODE_COLUMNS,
    "finished_at",
]
EPOCH_COLUMNS = [
    "pair",
    "teacher",
    "student",
    "method",
    "seed",
    "id",
    "epoch",
    "learning_rate",
    "train_top1",
    "test_loss",
    "test_top1",
    "test_top5",
    "seconds",
    "images_per_second",
]
TEACHER_COLUMNS = [
    "name",
    "network",
    "kind",
    "id",
    "origin",
    "at_hand",
    "why",
    "doubts",
    "test_top1",
    "test_top5",
    "parameters",
    "sha256",
    "source_sha256",
]
# What is a whole number where it is there; pandas' own "missing" lets it stay one in a file.
WHOLE_NUMBERS = dict.fromkeys(
    (
        "last_epoch",
        "best_epoch",
        "collapse_epoch",
        "peak_memory_bytes",
        "parameters",
        "extra_parameters",
        "extra_memory_bytes",
        "multiply_adds",
        "sessions",
    ),
    "Int64",
)
DIAGNOSTIC_PREFIX = "diagnostic_"  # how the columns of what was watched of a simplifier begin
LEAK = "trained on the validation images too; its accuracy is on the test images"


@dataclass(frozen=True)
class Frames:
    """A study's results. ``readings`` holds each run once, ``cards`` the teachers', by identity."""

    runs: pd.DataFrame
    epochs: pd.DataFrame
    teachers: pd.DataFrame
    run_states: dict[str, RunState]
    cards: dict[str, TeacherCard]

    @property
    def records(self) -> dict[str, Record]:
        """The finished runs' records, by identity."""
        found = {identity: reading.record for identity, reading in self.run_states.items()}
        return {identity: record for identity, record in found.items() if record is not None}


def build_frames(expansion: Expansion, store: Store) -> Frames:
    """Read a study's runs and teachers. Whatever cannot be read becomes a row that says so.

    Raises:
        PublishedError: a file of published values, which a teacher is held against, cannot be read.
    """
    readings = {
        identity: read_run_state(store, store.run(identity), seed)
        for cell in expansion.cells
        for seed, identity in cell.runs.items()
    }
    runs, epochs, accepted = [], [], read_acceptances()
    today = {
        identity: expansion.code_of(cell.spec)
        for cell in expansion.cells
        for identity in cell.runs.values()
    }
    for keys in _expected(expansion):
        reading = readings[keys["id"]]
        runs.append({**keys, "outcome": reading.outcome, "reason": reading.reason})
        if reading.record is not None:
            runs[-1] |= _run_values(reading.record)
            runs[-1] |= code_values(reading.record, today[keys["id"]], accepted)
            epochs += [{**keys, **row} for row in _epoch_values(reading.record)]
    classes = expansion.images.classes
    cards = {node.id: _card(node, store) for node in expansion.teachers}
    teachers = [
        _teacher_row(
            node, cards[node.id], store, classes, _code_of(node, expansion, store, accepted)
        )
        for node in expansion.teachers
    ]
    measured = dict.fromkeys(name for row in epochs for name in row)
    extra = [name for name in measured if name.startswith(("loss_", DIAGNOSTIC_PREFIX))]
    return Frames(
        runs=pd.DataFrame(runs, columns=RUN_COLUMNS),
        epochs=pd.DataFrame(epochs, columns=[*EPOCH_COLUMNS, *extra]),
        teachers=pd.DataFrame(teachers, columns=TEACHER_COLUMNS),
        run_states=readings,
        cards={identity: card for identity, card in cards.items() if isinstance(card, TeacherCard)},
    )


def _expected(expansion: Expansion) -> list[dict[str, Any]]:
    """One row per pair, method and seed; a run without a teacher stands in each of its pairs."""
    networks = {node.name: node.spec.network for node in expansion.teachers}
    rows = []
    for teacher, student in expansion.pairs:
        for method in expansion.methods_of(teacher, student):
            cell = expansion.cell_of(teacher, student, method)
            rows += [
                {
                    "pair": pair_label(teacher, student),
                    "teacher": teacher,
                    "teacher_network": networks[teacher],
                    "student": student,
                    "method": method,
                    "seed": seed,
                    "id": identity,
                    "shared": cell.teacher is None,
                }
                for seed, identity in sorted(cell.runs.items())
            ]
    return rows


def diagnostic_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs in which a simplifier was watched; none where there was none."""
    columns = [name for name in epochs.columns if name.startswith(DIAGNOSTIC_PREFIX)]
    return epochs.dropna(subset=columns, how="all") if columns else epochs.iloc[:0]


def last_diagnostic_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return of each run with a simplifier the last epoch in which it was watched."""
    seen = diagnostic_epochs(epochs)
    return seen[seen["epoch"] == seen.groupby("id")["epoch"].transform("max")]


def pair_label(teacher: str, student: str) -> str:
    """Return how a pair is written."""
    return f"{teacher} → {student}"


def _run_values(record: Record) -> dict[str, Any]:
    cost, collapse = record.cost, record.collapse
    return {
        "last_epoch": record.last.epoch,
        "last_top1": record.last.top1,
        "last_top5": record.last.top5,
        "best_epoch": record.best.epoch,
        "best_top1": record.best.top1,
        "best_top5": record.best.top5,
        "collapsed": collapse.collapsed if collapse else None,
        "collapse_reason": collapse.reason if collapse else None,
        "collapse_epoch": collapse.first_epoch if collapse else None,
        "seconds": cost.train_seconds,
        **cost.model_dump(exclude={"train_seconds"}),
        "seconds_per_step": _seconds_per_step(record),
        "teacher_sha256": record.teacher.sha256 if record.teacher else None,
        "device": device_of(record),
        "torch": record.environment.get("torch"),
        "git_commit": record.environment.get("git_commit"),
        "git_clean": record.environment.get("git_clean"),
        "sources": record.environment.get("sources"),
        "finished_at": record.finished_at,
    }


def device_of(record: Record) -> str:
    """Return what a run was trained on: the GPU's name, or the CPU's."""
    kind = "gpu" if record.execution.get("device") == "cuda" else "cpu"
    return str(record.environment.get(kind) or kind)


def _seconds_per_step(record: Record) -> float | None:
    speed = record.cost.images_per_second
    return record.spec.recipe.batch_size / speed if speed > 0 else None


def _epoch_values(record: Record) -> list[dict[str, Any]]:
    rows = []
    for epoch in record.epochs:
        values = epoch.model_dump(exclude={"train_losses", "diagnostics"})
        values |= {f"loss_{name}": value for name, value in epoch.train_losses.items()}
        values |= {f"{DIAGNOSTIC_PREFIX}{name}": value for name, value in epoch.diagnostics.items()}
        rows.append(values)
    return rows


def _card(node: TeacherNode, store: Store) -> TeacherCard | str | None:
    """Return a teacher's card, why it cannot be used, or none where there is none."""
    try:
        card = store.teacher(node.id).card()
    except StoreError as error:
        return with_relative_paths(str(error), store)
    if card is not None and card.network != node.spec.network:
        return f"its card is of a {card.network}, not of a {node.spec.network}"
    return card


def _code_of(
    node: TeacherNode, expansion: Expansion, store: Store, accepted: Iterable[Acceptance]
) -> list[str]:
    """Return what must be said of the code that trained a teacher, if anything."""
    if node.spec.kind == "imported":
        return []
    record = read_run_state(store, store.teacher(node.id), node.spec.run.seed).record
    today = expansion.code_of(node.spec.run)
    changes = code_changes_of(record.code, today, accepted) if record else None
    return [f"trained by other code than today's ({files_text(changes)})"] if changes else []


def _teacher_row(
    node: TeacherNode, card: TeacherCard | str | None, store: Store, classes: int, code: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": node.name,
        "network": node.spec.network,
        "kind": node.spec.kind,
        "id": node.id,
        "origin": node.origin,
        "at_hand": False,
        "doubts": "",
    }
    if isinstance(card, str):
        return row | {"why": card}
    if card is not None:
        values = card.model_dump(include=set(TEACHER_COLUMNS) - {"id", "name"})
        if node.leaks:
            values["origin"] += f", {LEAK}"
        said = "; ".join([*accuracy_doubts(node.spec, card.test_top1, classes), *code])
        return row | values | {"at_hand": True, "doubts": said}
    if node.spec.kind == "imported":
        return row | {"why": "not imported yet"}
    reading = read_run_state(store, store.teacher(node.id), node.spec.run.seed)
    reason = f" ({reading.reason})" if reading.reason else ""
    return row | {"why": f"training: {reading.outcome}{reason}"}
