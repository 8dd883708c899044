"""Tidy frames of a study: the expected runs, joined with the current contents of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.frames.code_columns import CODE_COLUMNS, code_values
from report.frames.run_state import RunState, read_run_state
from report.frames.teacher_rows import TEACHER_COLUMNS, read_card, teacher_row
from skd.code.accepted import read_acceptances
from skd.store.records import Record, TeacherCard
from skd.store.store import Store
from skd.study.expansion import Expansion

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
# Columns of whole numbers. Pandas' nullable type keeps them whole if some values are missing.
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
DIAGNOSTIC_PREFIX = "diagnostic_"  # of the columns with diagnostics of losses
# KL divergence in nats of the softened from the simplified teacher. Below it, the simplifier has
# practically no effect.
UNCHANGED_BELOW = 0.001


@dataclass(frozen=True)
class Frames:
    """A study's results.

    Attributes:
        runs: a row for each pair, method and seed.
        epochs: a row for each epoch of a finished run.
        teachers: a row for each teacher.
        run_states: each run once, by identity.
        cards: the usable cards of teachers, by identity.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    teachers: pd.DataFrame
    run_states: dict[str, RunState]
    cards: dict[str, TeacherCard]

    @property
    def records(self) -> dict[str, Record]:
        """The finished runs' records, by identity."""
        records = {identity: state.record for identity, state in self.run_states.items()}
        return {identity: record for identity, record in records.items() if record is not None}


def build_frames(expansion: Expansion, store: Store) -> Frames:
    """Read a study's runs and teachers. An unreadable one becomes a row with the reason.

    Raises:
        PublishedError: a file of published values, which teachers are compared with, cannot be
            read.
    """
    run_states = {
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
    for keys in _expected_runs(expansion):
        state = run_states[keys["id"]]
        runs.append({**keys, "outcome": state.outcome, "reason": state.reason})
        if state.record is not None:
            runs[-1] |= _run_values(state.record)
            runs[-1] |= code_values(state.record, today[keys["id"]], accepted)
            epochs += [{**keys, **row} for row in _epoch_values(state.record)]
    cards = {node.id: read_card(node, store) for node in expansion.teachers}
    teachers = [
        teacher_row(node, cards[node.id], expansion, store, accepted) for node in expansion.teachers
    ]
    names = dict.fromkeys(name for row in epochs for name in row)
    extra = [name for name in names if name.startswith(("loss_", DIAGNOSTIC_PREFIX))]
    return Frames(
        runs=pd.DataFrame(runs, columns=RUN_COLUMNS),
        epochs=pd.DataFrame(epochs, columns=[*EPOCH_COLUMNS, *extra]),
        teachers=pd.DataFrame(teachers, columns=TEACHER_COLUMNS),
        run_states=run_states,
        cards={identity: card for identity, card in cards.items() if isinstance(card, TeacherCard)},
    )


def _expected_runs(expansion: Expansion) -> list[dict[str, Any]]:
    """Return a row for each pair, method and seed; a run without a teacher is in several pairs."""
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
    """Return the epochs with diagnostics of a simplifier; empty without a simplifier."""
    columns = simplifier_columns(epochs)
    return epochs.dropna(subset=columns, how="all") if columns else epochs.iloc[:0]


def simplifier_columns(epochs: pd.DataFrame) -> list[str]:
    """Return the columns with diagnostics of the simplifier.

    Those of other losses have the loss's name and a slash after the prefix.
    """
    return [name for name in epochs if name.startswith(DIAGNOSTIC_PREFIX) and "/" not in name]


def last_diagnostic_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return the last epoch with diagnostics of each run with a simplifier."""
    diagnostics = diagnostic_epochs(epochs)
    last = diagnostics.groupby("id")["epoch"].transform("max")
    return diagnostics[diagnostics["epoch"] == last]


def pair_label(teacher: str, student: str) -> str:
    """Return a pair's label."""
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
    """Return the name of the GPU or CPU that a run was trained on."""
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
