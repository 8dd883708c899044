"""The files by which Snakemake knows what is done, and whether the store still has it. No torch.

Snakemake looks at its own files alone. Where a run's or a teacher's folder was removed since, or a
run was trained anew, they say what is no longer true, and have to be made again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skd.common.files import sha256_of
from skd.planning.batches import CellBatch
from skd.planning.views_choice import ViewsPlan
from skd.store.outcomes import cell_result
from skd.store.records import TeacherCard
from skd.store.stale import FinishedRun
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.expansion import Cell, Expansion, TeacherNode


def batch_file(folder: Path, batch: CellBatch) -> Path:
    """Return the file of a batch, in the study's folder."""
    return folder / "cells" / f"{batch.path}.json"


def teacher_file(folder: Path, node: TeacherNode) -> Path:
    """Return the file of a teacher, in the study's folder."""
    return folder / "teachers" / f"{node.name}-{node.id}.json"


def views_file(folder: Path, plan: ViewsPlan) -> Path:
    """Return the file of a teacher's stored views, in the study's folder."""
    return folder / "teacher-views" / f"{plan.teacher}-{plan.digest}.json"


def report_file(folder: Path) -> Path:
    """Return the report's page, in the study's folder."""
    return folder / "report" / "index.html"


def report_code_changed(folder: Path, finished: Iterable[FinishedRun]) -> bool:
    """Return whether the report says of a finished run another code than what is true today.

    Args:
        folder: the study's folder in the results.
        finished: the study's runs.
    """
    path = report_file(folder).parent / "data" / "runs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            told = {row["id"]: row["code_state"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error):  # none, or an earlier version's
        return False
    return any(told.get(run.entry.id) not in ("", None, run.state) for run in finished)


def batch_content(expansion: Expansion, cells: Iterable[Cell], store: Store) -> list[Any]:
    """Return what a batch's file says: what came of each run, and the digest of its record."""
    found = [cell_result(expansion, cell, store).model_dump(mode="json") for cell in cells]
    for cell in found:
        for run in cell["runs"]:
            run["record_sha256"] = _digest(store.run(run["id"]))
    return found


def outdated_files(
    folder: Path,
    expansion: Expansion,
    batches: Sequence[CellBatch],
    store: Store,
    plans: Callable[[], Iterable[ViewsPlan]],
) -> list[Path]:
    """Return the files that tell of what is gone or another one by now, and so must be made again.

    Args:
        folder: the study's folder in the results.
        expansion: the study.
        batches: its batches.
        store: its runs and teachers.
        plans: returns the teachers' views that are stored; asked only where a run has to be
            trained, since nobody else looks them up.
    """
    cells = {batch: batch_file(folder, batch) for batch in batches}
    left = [batch for batch, path in cells.items() if not _told(path, store)]
    found = [cells[batch] for batch in left]
    for node in expansion.teachers:
        if not _is_card(path := teacher_file(folder, node), store.teacher(node.id)):
            found.append(path)
    keys = {f"{batch.pair}/{method}" for batch in left for method in batch.methods}
    for plan in plans() if left else ():
        if plan.cells & keys and not _has_views(path := views_file(folder, plan), plan):
            found.append(path)
    return [path for path in found if path.is_file()]  # what is not there is missed anyway


def _told(path: Path, store: Store) -> bool:
    try:
        runs = [
            run for cell in json.loads(path.read_text(encoding="utf-8")) for run in cell["runs"]
        ]
        return all(_is_same(run, store.run(run["id"])) for run in runs)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _is_same(run: dict[str, Any], entry: StoreEntry) -> bool:
    if "record_sha256" not in run:  # written by an earlier version
        return entry.record_path.is_file()
    return run["record_sha256"] == _digest(entry)


def _digest(entry: StoreEntry) -> str | None:
    try:
        return sha256_of(entry.record_path)
    except FileNotFoundError:
        return None


def _is_card(path: Path, entry: StoreEntry) -> bool:
    try:
        return TeacherCard.model_validate_json(path.read_bytes()) == entry.card()
    except (OSError, ValidationError, StoreError):
        return False


def _has_views(path: Path, plan: ViewsPlan) -> bool:
    """Return whether what a file of views names is there; it names none where they were refused."""
    try:
        named = {card["output"] for card in json.loads(path.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        return False
    files = [file for file in plan.files if file.output in named]
    return all(file.path.is_file() and file.is_made() for file in files)
