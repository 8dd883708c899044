"""The output of `skd show` for a terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skd.common.frozen import canonical
from skd.common.terminal import format_duration
from skd.common.wrapped_networks import network_label
from skd.provenance.details import EntryDetails, StoredFile, TeacherOfRun
from skd.provenance.entry_reading import display_path
from skd.provenance.lookup import UNUSABLE
from skd.store.record_differences import commit_text
from skd.store.records import Accuracy, Collapse, Cost
from skd.study.spec import DatasetSpec, MethodSpec, Recipe, RunSpec

TRACEBACK_LINES = 12
STYLES = {"done": "green", "running": "cyan", "failed": "red", "unreadable": "red"}
HARDWARE = ("gpu", "gpu_driver", "cuda", "cudnn", "cpu", "cpu_count", "platform", "host")
SOFTWARE = ("python", "torch", "torchvision", "numpy")
Rows = Iterable[tuple[str, str]]


def render_details(details: EntryDetails) -> Group:
    """Return details for a terminal, in sections; empty sections are left out."""
    spec, record = details.spec, details.record
    run = spec if isinstance(spec, RunSpec) else None
    sections: list[tuple[str, RenderableType | None]] = [
        ("What it is", _rows(_description(details))),
        ("Method", _rows(_method(run.method)) if run else None),
        ("Recipe", _lines([_settings(_recipe(run.recipe))]) if run else None),
        ("Outcome", _rows(_outcome(details))),
        ("Last attempt to fail", _failure(details)),
        ("Cost", _rows(_cost(record.cost)) if record else None),
        ("Environment", _rows(_environment(details))),
        ("Files", _files(details.files) if details.files else None),
        ("Logs", _lines(map(display_path, details.logs))),
    ]
    title = Text.assemble(
        (f"{details.kind} {details.entry.id}", "bold"),
        ": ",
        (details.state, STYLES.get(details.state, "")),
    )
    parts: list[RenderableType] = [title]
    for name, body in sections:
        if body is not None:
            parts += [Text(f"\n{name}", style="bold"), Padding(body, (0, 0, 0, 2))]
    return Group(*parts)


def _rows(rows: Rows) -> Table | None:
    """Return a grid of names and values; ``None`` if there are no rows."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    return grid if grid.row_count else None


def _lines(lines: Iterable[str]) -> Text | None:
    """Return lines as text that folds long lines; ``None`` if there are no lines."""
    text = "\n".join(lines)
    return Text(text, overflow="fold") if text else None


def _description(details: EntryDetails) -> Rows:
    spec, card = details.spec, details.card
    if spec is not None:
        yield "network", network_label(spec.network)
        yield "data set", _dataset(spec.dataset)
    elif card is not None:
        yield "network", network_label(card.network)
        yield "data set", card.dataset
    if isinstance(spec, RunSpec):
        yield "seed", str(spec.seed)
    partner = spec.partner if isinstance(spec, RunSpec) else card and card.partner
    if partner:
        yield "suits", f"{partner}, its partner in the training"
    if card is not None:
        yield "origin", card.origin
        if card.source_sha256:
            yield "", f"file's sha256 {card.source_sha256}"
    if details.teacher_of_run is not None:
        yield from _teacher(details.teacher_of_run)
    for number, place in enumerate(details.occurrences):
        yield ("" if number else "in studies"), place.label
    if not details.occurrences:
        yield "in studies", "none of the expanded ones"
    for study in details.studies_not_searched:
        yield "", f"not searched: {study}, its specs.json is {UNUSABLE}; first: skd expand {study}"
    yield "folder", display_path(details.entry.folder)


def _teacher(teacher: TeacherOfRun) -> Rows:
    yield "teacher", f"{network_label(teacher.spec.network)}, {display_path(teacher.entry.folder)}"
    card = teacher.card_then or teacher.card_now
    if card is not None:
        yield "", f"{card.test_top1:.2f} % top-1; {card.origin}"
        yield "", f"weights' sha256 {card.sha256}"
    else:
        yield "", "not in this store yet"
    if teacher.is_replaced:
        yield "", f"NOW IN THIS STORE WITH OTHER WEIGHTS: sha256 {teacher.card_now.sha256}"


def _method(method: MethodSpec) -> Rows:
    parts = [(term.term, term) for term in method.terms]
    parts += [(part.name, part) for part in method.transformations]
    for name, part in parts:
        version = f" (version {part.version})" if part.version > 1 else ""
        yield f"{name}{version}", _settings(part.settings)


def _outcome(details: EntryDetails) -> Rows:
    record, card, failure = details.record, details.card, details.failure
    when = f", {record.finished_at}" if record else ""
    reason = f": {details.reason}" if details.reason else ""
    yield "state", f"{details.state}{reason}{when}"
    for problem in details.problems:
        yield "", problem
    if details.problems:
        name = "teacher" if details.kind == "teacher" else "train"
        yield "", f"move that file away, then write it again: skd {name}"
    if details.state == "running":
        yield "progress", _progress(details)
    if failure and failure.repeats:
        yield "", "another attempt would fail in the same way"
    if record:
        yield "last", _accuracy(record.last)
        yield "best", _accuracy(record.best)
        if record.collapse:
            yield "collapse", _collapse(record.collapse)
    elif card:
        yield "measured", f"top-1 {card.test_top1:.2f} %, top-5 {card.test_top5:.2f} %"


def _progress(details: EntryDetails) -> str:
    progress = details.progress
    if progress is None:
        return "starting"
    return (
        f"epoch {progress.epoch + 1}/{progress.epochs}, {progress.images_per_second:.0f} images/s, "
        f"{format_duration(progress.seconds_left)} left"
    )


def _failure(details: EntryDetails) -> Text | None:
    if details.failure is None:
        return None
    note = details.failure
    lines = note.details.rstrip().splitlines()
    tail = lines[-TRACEBACK_LINES:]
    omitted = len(lines) - len(tail)
    hint = [f"… {omitted} more lines: --json has them"] if omitted else []
    first = f"{note.kind} in epoch {note.epoch + 1}, {note.failed_at}"
    return _lines([first, *hint, *tail])


def _cost(cost: Cost) -> Rows:
    yield (
        "training",
        f"{format_duration(cost.train_seconds)}, {cost.seconds_per_epoch:.2f} s per epoch, "
        f"{cost.images_per_second:.0f} images/s",
    )
    yield "memory", f"{_bytes(cost.peak_memory_bytes)} at the peak"
    if cost.gpu_utilisation is not None:
        yield "GPU", f"{cost.gpu_utilisation:.0f} % of the time in use"
    yield (
        "network",
        f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds per image",
    )
    if cost.extra_parameters or cost.extra_memory_bytes:
        memory = f", {_bytes(cost.extra_memory_bytes)}" if cost.extra_memory_bytes else ""
        yield "objective", f"{cost.extra_parameters:,} parameters{memory}"


def _environment(details: EntryDetails) -> Rows:
    environment = details.environment
    if environment:
        yield "code", f"skd {environment.get('skd', '?')}, {commit_text(environment)}"
        yield "sources", _sources(details)
    for name, keys in (("versions", SOFTWARE), ("machine", HARDWARE)):
        known = [key for key in keys if environment.get(key) is not None]
        if known:
            yield name, ", ".join(_setting(key, environment[key]) for key in known)
    if environment.get("slurm_job"):
        yield "SLURM job", str(environment["slurm_job"])
    execution = {key: value for key, value in details.execution.items() if key != "sessions"}
    if execution:
        yield "executed", _settings(execution)
    for number, session in enumerate(details.execution.get("sessions", []), start=1):
        yield f"session {number}", str(session)


def _sources(details: EntryDetails) -> str:
    if details.same_sources is None:
        return "not recorded"
    if details.same_sources:
        return f"{details.sources}, same as this code"
    return f"{details.sources}, DIFFERENT FROM THIS CODE: {details.sources_here}"


def _files(files: Iterable[StoredFile]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", style="dim")
    for file in files:
        style = "red" if file.state in ("DIFFERS", "not there") else ""
        sha256 = file.sha256 or "no sha256 recorded"
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
    start = f" from epoch {collapse.first_epoch}" if collapse.first_epoch else ""
    return f"COLLAPSED{start}: {collapse.reason}"


def _recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe without those that have no effect."""
    unused = recipe.without_effect()
    return {name: value for name, value in canonical(recipe).items() if name not in unused}


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(_setting(key, value) for key, value in values.items())


def _setting(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        value = {True: "yes", False: "no", None: "none"}[value]
    return f"{key} {value}"


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} bytes"
