"""The output of `skd show --json`. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from skd.common.frozen import canonical
from skd.common.lease import read_holder
from skd.provenance.details import EntryDetails, StoredFile, TeacherOfRun
from skd.provenance.entry_reading import display_path
from skd.study.spec import RunSpec


def details_json(details: EntryDetails) -> dict[str, Any]:
    """Return details as plain data. Paths are those of `display_path`; missing values are null."""
    record, card, spec = details.record, details.card, details.spec
    run = spec if isinstance(spec, RunSpec) else None
    holder = read_holder(details.entry.folder) if details.state == "running" else None
    return {
        "id": details.entry.id,
        "kind": details.kind,
        "folder": display_path(details.entry.folder),
        "state": details.state,
        "reason": details.reason or None,
        "problems": list(details.problems),
        "network": spec.network if spec else card.network if card else None,
        "dataset": canonical(spec.dataset) if spec else {"name": card.dataset} if card else None,
        "seed": run.seed if run else None,
        "partner": run.partner if run else None,
        "teacher": _teacher(details.teacher_of_run) if details.teacher_of_run else None,
        "card": card.model_dump() if card else None,
        "studies": [place.data() for place in details.occurrences],
        "studies_not_searched": list(details.studies_not_searched),
        "method": canonical(run.method) if run else None,
        "recipe": canonical(run.recipe) if run else None,
        "holder": asdict(holder) if holder else None,
        "progress": details.progress.model_dump() if details.progress else None,
        "failure": details.failure.model_dump(exclude={"environment"}) if details.failure else None,
        "last": record.last.model_dump() if record else None,
        "best": record.best.model_dump() if record else None,
        "collapse": record.collapse.model_dump() if record and record.collapse else None,
        "cost": record.cost.model_dump() if record else None,
        "environment": dict(details.environment),
        "sources": {
            "recorded": details.sources,
            "here": details.sources_here,
            "same": details.same_sources,
        },
        "execution": dict(details.execution),
        "finished_at": record.finished_at if record else None,
        "files": [_file(file) for file in details.files],
        "logs": [display_path(path) for path in details.logs],
    }


def _teacher(teacher: TeacherOfRun) -> dict[str, Any]:
    return {
        "id": teacher.entry.id,
        "folder": display_path(teacher.entry.folder),
        "spec": canonical(teacher.spec),
        "as_it_taught": teacher.card_then.model_dump() if teacher.card_then else None,
        "now": teacher.card_now.model_dump() if teacher.card_now else None,
    }


def _file(file: StoredFile) -> dict[str, Any]:
    are_known = file.actual_sha256 and file.sha256
    return {
        "path": display_path(file.path),
        "sha256": file.sha256,
        "there": file.exists,
        "matches": file.actual_sha256 == file.sha256 if are_known else None,
    }
