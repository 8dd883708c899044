"""Failure notes from Snakemake's log, for jobs that could not write any. Imports no torch.

A job that never started, or whose processes were all killed, leaves no failure note. Only the
driver's log has SLURM's message, so the note is written from that log afterwards.
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
_RULE = re.compile(r"^\s*Error in rule (\w+)")
_LOGFILE = re.compile(r"^Logfile (.+):$")
_RULER = re.compile(r"^=+$")
_LOG = re.compile(r"^\s+log: .*?([^\s,]+) \(check log file")
# Text that the plugin adds to each message; it does not concern the job.
_NOISE = re.compile(r"(Detailed failure reason unavailable|For further error details).*$")


@dataclass(frozen=True)
class JobError:
    """One failed job in Snakemake's log."""

    output: str
    message: str
    log: str


def find_job_errors(log: str) -> list[JobError]:
    """Return the jobs that SLURM or the submission reports as failed, the last error per output."""
    errors = {error.output: error for error in _errors(log.splitlines())}
    return [*errors.values()]


def failed_rule_lines(log: str) -> list[str]:
    """Return a line for each failed rule: its name, the last line of its log, and the log's path.

    Snakemake shows these logs with ``show-failed-logs``.
    """
    lines, rule, file, last = [], "", None, None
    for line in log.splitlines():
        if match := _RULE.match(line):
            rule = match[1]
        elif match := _LOGFILE.match(line):
            file, last = match[1], None
        elif file is not None and _RULER.match(line):
            if last is None:  # the ruler above the log
                last = "its log is empty"
                continue
            lines.append(f"{rule}: {last}; {file}")
            file = None
        elif last is not None and file is not None and line.strip():
            last = line.strip()
    return [*dict.fromkeys(lines)]


def note_job_error(entry: StoreEntry, error: JobError) -> bool:
    """Write a failure note for a run of a failed job unless it has one; return whether it did."""
    holder = read_holder(entry.folder)
    failure = entry.failure_or_none()
    try:
        finished = entry.record() is not None or entry.card() is not None
    except StoreError:  # status and report show this error
        return False
    has_note = failure is not None and failure.kind != KIND
    if finished or has_note or (holder is not None and holder.is_alive()):
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
