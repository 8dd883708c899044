"""What `skd show` says, as one JSON document. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from skd.common.frozen import canonical
from skd.common.lease import read_holder
from skd.provenance.details import EntryDetails, StoredFile, TeacherOfRun
from skd.provenance.entry_reading import display_path
from skd.study.spec import RunSpec


def details_json(facts: EntryDetails) -> dict[str, Any]:
    """Return all facts as plain data. Paths are as `display_path` has them; absent things are null."""
    record, card, spec = facts.record, facts.card, facts.spec
    run = spec if isinstance(spec, RunSpec) else None
    held = read_holder(facts.entry.folder) if facts.state == "running" else None
    return {
        "id": facts.entry.id,
        "kind": facts.kind,
        "folder": display_path(facts.entry.folder),
        "state": facts.state,
        "reason": facts.reason or None,
        "problems": list(facts.problems),
        "network": spec.network if spec else card.network if card else None,
        "dataset": canonical(spec.dataset) if spec else {"name": card.dataset} if card else None,
        "seed": run.seed if run else None,
        "teacher": _teacher(facts.teacher_of_run) if facts.teacher_of_run else None,
        "card": card.model_dump() if card else None,
        "studies": [place.data() for place in facts.occurrences],
        "studies_not_searched": list(facts.studies_not_searched),
        "method": canonical(run.method) if run else None,
        "recipe": canonical(run.recipe) if run else None,
        "holder": asdict(held) if held else None,
        "progress": facts.progress.model_dump() if facts.progress else None,
        "failure": facts.failure.model_dump(exclude={"environment"}) if facts.failure else None,
        "last": record.last.model_dump() if record else None,
        "best": record.best.model_dump() if record else None,
        "collapse": record.collapse.model_dump() if record and record.collapse else None,
        "cost": record.cost.model_dump() if record else None,
        "environment": dict(facts.environment),
        "sources": {
            "recorded": facts.sources,
            "here": facts.sources_here,
            "same": facts.same_sources,
        },
        "execution": dict(facts.execution),
        "finished_at": record.finished_at if record else None,
        "files": [_file(file) for file in facts.files],
        "logs": [display_path(path) for path in facts.logs],
    }


def _teacher(taught: TeacherOfRun) -> dict[str, Any]:
    return {
        "id": taught.entry.id,
        "folder": display_path(taught.entry.folder),
        "spec": canonical(taught.spec),
        "as_it_taught": taught.then.model_dump() if taught.then else None,
        "now": taught.now.model_dump() if taught.now else None,
    }


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "path": display_path(file.path),
        "sha256": file.sha256,
        "there": file.there,
        "matches": file.found == file.sha256 if file.found and file.sha256 else None,
    }
