"""Why jobs failed that could not say so themselves: told by Snakemake's log. Imports no torch.

A job that never started, or was killed whole, leaves no failure note. What SLURM said of it is in
the driver's log alone; from there the note is written after the fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from skd.common.lease import read_holder
from skd.jobs.workers import write_failure_note
from skd.store.store import StoreEntry, StoreError

KIND = "Job"

_BEGIN = re.compile(r"^\s*Error in rule (train|teacher)")
_END = re.compile(r"^\s*$|^\[")
_MESSAGE = re.compile(r"^\s+message: (.*)$")
_OUTPUT = re.compile(r"^\s+output: (\S+)")
_LOG = re.compile(r"^\s+log: .*?([^\s,]+) \(check log file")
# What the plugin adds of its own; the advice is not about this job.
_NOISE = re.compile(r"(Detailed failure reason unavailable|For further error details).*$")


@dataclass(frozen=True)
class JobError:
    """One failed job, as Snakemake's log has it."""

    output: str
    message: str
    log: str


def find_job_errors(log: str) -> list[JobError]:
    """Return the jobs that SLURM, or the submission, failed; the last word on each output."""
    found = {error.output: error for error in _errors(log.splitlines())}
    return [*found.values()]


def note_job_error(entry: StoreEntry, error: JobError) -> bool:
    """Leave a failed job's reason for a run of it that has no word of its own; say whether."""
    current = read_holder(entry.folder)
    failure = entry.failure_or_none()
    try:
        finished = entry.record() is not None or entry.card() is not None
    except StoreError:  # status and report say so
        return False
    own_word = failure is not None and failure.kind != KIND
    if finished or own_word or (current is not None and current.is_alive()):
        return False
    write_failure_note(entry, error.message, KIND, details=f"log: {error.log}" if error.log else "")
    return True


def _errors(lines: list[str]) -> Iterator[JobError]:
    fields: dict[str, str] | None = None
    for line in [*lines, ""]:
        if fields is not None and (_END.match(line) or _BEGIN.match(line)):
            if fields.get("message") not in (None, "None") and "output" in fields:
                message = _NOISE.sub("", fields["message"]).strip()
                yield JobError(fields["output"], message, fields.get("log", ""))
            fields = None
        if _BEGIN.match(line):
            fields = {}
        elif fields is not None:
            for name, pattern in (("message", _MESSAGE), ("output", _OUTPUT), ("log", _LOG)):
                if match := pattern.match(line):
                    fields.setdefault(name, match[1])
