"""What `skd show` says, for a terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skd.common.frozen import canonical
from skd.jobs.overview import format_duration
from skd.provenance.details import EntryDetails, StoredFile
from skd.provenance.entry_reading import display_path
from skd.provenance.lookup import UNUSABLE
from skd.store.record_differences import commit_text
from skd.store.records import Accuracy, Collapse, Cost
from skd.study.spec import DatasetSpec, MethodSpec, RunSpec

TRACEBACK_LINES = 12
STYLES = {"done": "green", "running": "cyan", "failed": "red", "unreadable": "red"}
HARDWARE = ("gpu", "gpu_driver", "cuda", "cudnn", "cpu", "cpu_count", "platform", "host")
SOFTWARE = ("python", "torch", "torchvision", "numpy")
Rows = Iterable[tuple[str, str]]


def render_details(facts: EntryDetails) -> Group:
    """Return the facts for a terminal, in sections; a section with nothing to say is left out."""
    spec, record = facts.spec, facts.record
    run = spec if isinstance(spec, RunSpec) else None
    sections: list[tuple[str, RenderableType | None]] = [
        ("What it is", _rows(_what(facts))),
        ("Method", _rows(_method(run.method)) if run else None),
        ("Recipe", _lines([_settings(canonical(run.recipe))]) if run else None),
        ("Outcome", _rows(_outcome(facts))),
        ("Last attempt to fail", _failure(facts)),
        ("Cost", _rows(_cost(record.cost)) if record else None),
        ("Environment", _rows(_environment(facts))),
        ("Files", _files(facts.files) if facts.files else None),
        ("Logs", _lines(map(display_path, facts.logs))),
    ]
    title = Text.assemble(
        (f"{facts.kind} {facts.entry.id}", "bold"), ": ", (facts.state, STYLES.get(facts.state, ""))
    )
    parts: list[RenderableType] = [title]
    for name, body in sections:
        if body is not None:
            parts += [Text(f"\n{name}", style="bold"), Padding(body, (0, 0, 0, 2))]
    return Group(*parts)


def _rows(rows: Rows) -> Table | None:
    """Return a grid of names and values; none without any."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    return grid if grid.row_count else None


def _lines(lines: Iterable[str]) -> Text | None:
    """Return lines as they are, folded where they are too long; none without any."""
    text = "\n".join(lines)
    return Text(text, overflow="fold") if text else None


def _what(facts: EntryDetails) -> Rows:
    spec, card, taught = facts.spec, facts.card, facts.teacher_of_run
    if spec is not None:
        yield "network", spec.network
        yield "data set", _dataset(spec.dataset)
    elif card is not None:
        yield "network", card.network
        yield "data set", card.dataset
    if isinstance(spec, RunSpec):
        yield "seed", str(spec.seed)
    if card is not None:
        yield "origin", card.origin
        if card.source_sha256:
            yield "", f"file's sha256 {card.source_sha256}"
    if taught is not None:
        yield "teacher", f"{taught.spec.network}, {display_path(taught.entry.folder)}"
        told = taught.then or taught.now
        if told is not None:
            yield "", f"{told.test_top1:.2f} % top-1; {told.origin}"
            yield "", f"weights' sha256 {told.sha256}"
        else:
            yield "", "not in this store yet"
        if taught.is_replaced:
            yield "", f"NOW HERE WITH OTHER WEIGHTS: sha256 {taught.now.sha256}"
    for number, place in enumerate(facts.occurrences):
        yield ("" if number else "in studies"), place.label
    if not facts.occurrences:
        yield "in studies", "none that is expanded here"
    for study in facts.studies_not_searched:
        yield "", f"not searched: {study}, its specs.json is {UNUSABLE}; first: skd expand {study}"
    yield "folder", display_path(facts.entry.folder)


def _method(method: MethodSpec) -> Rows:
    parts = [(term.term, term) for term in method.terms]
    if method.simplifier:
        parts.append(("simplifier", method.simplifier))
    for name, part in parts:
        version = f" (version {part.version})" if part.version > 1 else ""
        yield f"{name}{version}", _settings(part.settings)


def _outcome(facts: EntryDetails) -> Rows:
    record, card, failure = facts.record, facts.card, facts.failure
    when = f", {record.finished_at}" if record else ""
    reason = f": {facts.reason}" if facts.reason else ""
    yield "state", f"{facts.state}{reason}{when}"
    for problem in facts.problems:
        yield "", problem
    if facts.problems:
        name = "teacher" if facts.kind == "teacher" else "train"
        yield "", f"move that file away, then `skd {name}` makes it anew"
    if facts.state == "running":
        yield "progress", _progress(facts)
    if failure and failure.repeats:
        yield "", "another attempt would fail in the same way"
    if record:
        yield "last", _accuracy(record.last)
        yield "best", _accuracy(record.best)
        if record.collapse:
            yield "collapse", _collapse(record.collapse)
    elif card:
        yield "measured", f"top-1 {card.test_top1:.2f} %, top-5 {card.test_top5:.2f} %"


def _progress(facts: EntryDetails) -> str:
    told = facts.progress
    if told is None:
        return "starting"
    return (
        f"epoch {told.epoch + 1}/{told.epochs}, {told.images_per_second:.0f} images/s, "
        f"{format_duration(told.seconds_left)} left"
    )


def _failure(facts: EntryDetails) -> Text | None:
    if facts.failure is None:
        return None
    note = facts.failure
    lines = note.details.rstrip().splitlines()
    shown = lines[-TRACEBACK_LINES:]
    left_out = [f"… {len(lines) - len(shown)} lines more: --json has them"] * (lines != shown)
    first = f"{note.kind} in epoch {note.epoch + 1}, {note.failed_at}"
    return _lines([first, *left_out, *shown])


def _cost(cost: Cost) -> Rows:
    yield (
        "training",
        f"{format_duration(cost.train_seconds)}, {cost.seconds_per_epoch:.2f} s an epoch, "
        f"{cost.images_per_second:.0f} images/s",
    )
    yield "memory", f"{_bytes(cost.peak_memory_bytes)} at its peak"
    if cost.gpu_utilisation is not None:
        yield "GPU", f"{cost.gpu_utilisation:.0f} % of the time in use"
    yield (
        "network",
        f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds an image",
    )
    if cost.extra_parameters or cost.extra_memory_bytes:
        memory = f", {_bytes(cost.extra_memory_bytes)}" if cost.extra_memory_bytes else ""
        yield "beside it", f"{cost.extra_parameters:,} parameters{memory}"


def _environment(facts: EntryDetails) -> Rows:
    found = facts.environment
    if found:
        yield "code", f"skd {found.get('skd', '?')}, {commit_text(found)}"
        yield "sources", _sources(facts)
    for name, keys in (("versions", SOFTWARE), ("machine", HARDWARE)):
        told = [_setting(key, found[key]) for key in keys if found.get(key) is not None]
        if told:
            yield name, ", ".join(told)
    if found.get("slurm_job"):
        yield "SLURM job", str(found["slurm_job"])
    how = {key: value for key, value in facts.execution.items() if key != "sessions"}
    if how:
        yield "executed", _settings(how)
    for number, session in enumerate(facts.execution.get("sessions", []), start=1):
        yield f"session {number}", str(session)


def _sources(facts: EntryDetails) -> str:
    if facts.same_sources is None:
        return "not recorded"
    here = "as here" if facts.same_sources else f"NOT AS HERE: this code is {facts.sources_here}"
    return f"{facts.sources}, {here}"


def _files(files: Iterable[StoredFile]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", style="dim")
    for file in files:
        style = "red" if file.state in ("DIFFERS", "not there") else ""
        sha256 = file.sha256 or "no sha256 stated"
        grid.add_row(Text(file.path.name), Text(file.state, style=style), Text(sha256))
    return grid


def _dataset(dataset: DatasetSpec) -> str:
    limit = f", {dataset.train_limit} training images" if dataset.train_limit else ""
    return f"{dataset.name}, {dataset.split} split{limit}"


def _accuracy(accuracy: Accuracy) -> str:
    return f"top-1 {accuracy.top1:.2f} %, top-5 {accuracy.top5:.2f} % (epoch {accuracy.epoch})"


def _collapse(collapse: Collapse) -> str:
    if not collapse.collapsed:
        return "no: the simplified teacher still teaches"
    begun = f" from epoch {collapse.first_epoch}" if collapse.first_epoch else ""
    return f"COLLAPSED{begun}: {collapse.reason}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(_setting(key, value) for key, value in values.items())


def _setting(key: str, value: Any) -> str:
    plain = {True: "yes", False: "no", None: "none"}.get(value) if _is_word(value) else None
    return f"{key} {plain or value}"


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} bytes"
