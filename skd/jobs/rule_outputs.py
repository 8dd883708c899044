"""The output files of the workflow's rules, and which of them are outdated. Imports no torch.

Snakemake only checks these files. If a run's or a teacher's folder was removed since, or a run was
trained again, they no longer match the store and Snakemake must make them again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skd.common.files import sha256_of
from skd.common.names import RESULTS_NAME
from skd.planning.batches import CellBatch, read_batches
from skd.planning.views_choice import ViewsPlan
from skd.store.outcomes import cell_result
from skd.store.records import TeacherCard
from skd.store.stale import FinishedRun
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.expansion import Cell, Expansion, TeacherNode


def batch_file(folder: Path, batch: CellBatch) -> Path:
    """Return the output file of a batch in the study's folder."""
    return folder / "cells" / f"{batch.path}.json"


def teacher_file(folder: Path, node: TeacherNode) -> Path:
    """Return the output file of a teacher in the study's folder."""
    return folder / "teachers" / f"{node.name}-{node.id}.json"


def views_file(folder: Path, plan: ViewsPlan) -> Path:
    """Return the output file of a teacher's stored views in the study's folder."""
    return folder / "teacher-views" / f"{plan.teacher}-{plan.digest}.json"


def entries_by_rule_output(
    expansion: Expansion, store: Store, results: Path
) -> dict[str, dict[str, StoreEntry]]:
    """Return what each job trains: by its output file, the store's entries by their label.

    Args:
        expansion: the study.
        store: the store of runs and teachers.
        results: the results folder, which has the study's batches.
    """
    folder = Path(RESULTS_NAME) / expansion.study  # as in Snakemake's log
    outputs = {
        teacher_file(folder, node).as_posix(): {f"teacher {node.name}": store.teacher(node.id)}
        for node in expansion.teachers
    }
    for batch in read_batches(expansion, results).batches:
        outputs[batch_file(folder, batch).as_posix()] = {
            f"{batch.pair}/{method} seed {seed}": store.run(run)
            for method in batch.methods
            for seed, run in expansion.cell(batch.pair, method).runs.items()
        }
    return outputs


def report_file(folder: Path) -> Path:
    """Return the report's page in the study's folder."""
    return folder / "report" / "index.html"


def report_code_changed(folder: Path, finished: Iterable[FinishedRun]) -> bool:
    """Return whether the report's state of the code is outdated for any finished run.

    Args:
        folder: the study's folder in the results folder.
        finished: the study's finished runs.
    """
    path = report_file(folder).parent / "data" / "runs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            states = {row["id"]: row["code_state"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error):  # no report, or one of an earlier version
        return False
    return any(states.get(run.entry.id) not in ("", None, run.state) for run in finished)


def batch_content(expansion: Expansion, cells: Iterable[Cell], store: Store) -> list[Any]:
    """Return the contents of a batch's file: each run's result, and the digest of its record."""
    results = [cell_result(expansion, cell, store).model_dump(mode="json") for cell in cells]
    for result in results:
        for run in result["runs"]:
            run["record_sha256"] = _record_digest(store.run(run["id"]))
    return results


def outdated_files(
    folder: Path,
    expansion: Expansion,
    batches: Sequence[CellBatch],
    store: Store,
    plans: Callable[[], Iterable[ViewsPlan]],
) -> list[Path]:
    """Return the existing output files that no longer match the store.

    Args:
        folder: the study's folder in the results folder.
        expansion: the study.
        batches: the study's batches.
        store: the store of runs and teachers.
        plans: returns the teachers' views that the study stores; called only if a run must be
            trained, because only training uses them.
    """
    files = {batch: batch_file(folder, batch) for batch in batches}
    outdated = [batch for batch, path in files.items() if not _matches_records(path, store)]
    paths = [files[batch] for batch in outdated]
    for node in expansion.teachers:
        if not _matches_card(path := teacher_file(folder, node), store.teacher(node.id)):
            paths.append(path)
    keys = {f"{batch.pair}/{method}" for batch in outdated for method in batch.methods}
    for plan in plans() if outdated else ():
        if plan.cells & keys and not _has_views(path := views_file(folder, plan), plan):
            paths.append(path)
    return [path for path in paths if path.is_file()]  # Snakemake makes missing files anyway


def _matches_records(path: Path, store: Store) -> bool:
    """Return whether the store has the records of which a batch's file has the digests."""
    try:
        runs = [
            run for cell in json.loads(path.read_text(encoding="utf-8")) for run in cell["runs"]
        ]
        return all(_matches_record(run, store.run(run["id"])) for run in runs)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _matches_record(run: dict[str, Any], entry: StoreEntry) -> bool:
    if "record_sha256" not in run:  # written by an earlier version
        return entry.record_path.is_file()
    return run["record_sha256"] == _record_digest(entry)


def _record_digest(entry: StoreEntry) -> str | None:
    try:
        return sha256_of(entry.record_path)
    except FileNotFoundError:
        return None


def _matches_card(path: Path, entry: StoreEntry) -> bool:
    try:
        return TeacherCard.model_validate_json(path.read_bytes()) == entry.card()
    except (OSError, ValidationError, StoreError):
        return False


def _has_views(path: Path, plan: ViewsPlan) -> bool:
    """Return whether all views that a file names exist; it names none if they were not stored."""
    try:
        outputs = {card["output"] for card in json.loads(path.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        return False
    files = [file for file in plan.files if file.output in outputs]
    return all(file.path.is_file() and file.is_made() for file in files)
