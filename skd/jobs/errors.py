"""Why jobs failed that could not say so themselves: told by Snakemake's log. Imports no torch.

A job that never started, or was killed whole, leaves no failure note. What SLURM said of it is in
the driver's log alone; it is kept in ``results/<study>/errors.json`` for status and report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from skd.files import write_json
from skd.spec import Frozen


class JobError(Frozen):
    """One failed job, as Snakemake's log has it."""

    message: str
    slurm_job: str | None = None
    log: str | None = None


_ERRORS = TypeAdapter(dict[str, JobError])
_BEGIN = re.compile(r"^Error in rule (train|teacher):$")
_FIELD = re.compile(r"^    (message|output|log|external_jobid): ?(.*)$")
# What the plugin adds of its own; the advice is not about this job.
_NOISE = (
    "For further error details see the cluster/cloud log and the log files of the "
    "involved rule(s).",
    "Detailed failure reason unavailable (status command is not 'sacct').",
)


def errors_path(results: Path, study: str) -> Path:
    """Return where a study's job errors are kept."""
    return results / study / "errors.json"


def read_errors(results: Path, study: str) -> dict[str, JobError]:
    """Return what is known of failed jobs, by the path of their output within the study."""
    try:
        return _ERRORS.validate_python(json.loads(errors_path(results, study).read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def keep_errors(results: Path, study: str, log: str) -> None:
    """Keep what a driver's log says of a study's failed jobs, the latest word on each."""
    found = find_errors(log, f"results/{study}/")
    path = errors_path(results, study)
    kept = {
        output: error
        for output, error in read_errors(results, study).items()
        if not (path.parent / output).exists()
    }
    if found or kept:
        write_json(path, _ERRORS.dump_python({**kept, **found}, mode="json"))


def find_errors(log: str, folder: str) -> dict[str, JobError]:
    """Return the failed jobs in a log of Snakemake's, by their output's path within a folder."""
    errors: dict[str, JobError] = {}
    fields: dict[str, str] | None = None
    for line in [*log.splitlines(), ""]:
        if fields is not None and (match := _FIELD.match(line)):
            fields[match[1]] = match[2]
        elif fields is not None and not line.startswith("    "):
            _keep(fields, folder, errors)
            fields = None
        if _BEGIN.match(line):
            fields = {}
    return errors


def _keep(fields: Mapping[str, str], folder: str, errors: dict[str, JobError]) -> None:
    output = fields.get("output", "")
    if not output.startswith(folder):
        return
    message = fields.get("message", "")
    for noise in _NOISE:
        message = message.replace(noise, "")
    message = message.strip().removesuffix("None")
    logs = fields.get("log", "").split(" (check")[0].split(", ")
    errors[output.removeprefix(folder)] = JobError(
        message=message or "its command failed",
        slurm_job=fields.get("external_jobid"),
        log=logs[-1] or None,
    )
