"""What `skd merge` says. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skd.provenance.details import WEIGHTS
from skd.provenance.lookup import EntryKind, ExpandedStudies
from skd.provenance.merge_plan import KIND_FOLDERS, MergeConflict, MergePlan
from skd.store.record_differences import ResultSide, code_text


def merge_summary(plan: MergePlan, dry_run: bool) -> list[str]:
    """Return what was merged, or would be, in a line for runs and one for teachers."""
    lines = [_counts(plan, kind, dry_run) for kind in ("run", "teacher")]
    new = [step.finished for step in plan.steps if step.new]
    if bare := [one.entry.id for one in new if one.kind == "teacher" and WEIGHTS not in one.files]:
        lines.append(
            f"teachers that came without their weights, and so cannot teach: {', '.join(bare)}"
        )
    if bare_runs := sum(one.kind == "run" and WEIGHTS not in one.files for one in new):
        lines.append(f"runs that came as a record only, without weights: {bare_runs}")
    return lines


def render_conflicts(conflicts: Sequence[MergeConflict], known: Iterable[ExpandedStudies]) -> Group:
    """Return all conflicts for a terminal: what differs, and what each side measured where.

    Args:
        conflicts: to show.
        known: studies that may have names for them.
    """
    known = list(known)
    parts: list[RenderableType] = []
    for conflict in conflicts:
        named = [studies.label(conflict.kind, conflict.id) for studies in known]
        label = next((f" ({name})" for name in named if name), "")
        parts.append(Text.assemble((f"{conflict.kind} {conflict.id}", "bold"), label))
        parts.append(Padding(Text(conflict.why, overflow="fold"), (0, 0, 0, 2)))
        if conflict.here and conflict.there:
            parts.append(Padding(_sides(conflict), (0, 0, 0, 2)))
            if words := _code(conflict.here, conflict.there):
                parts.append(Padding(Text(words, overflow="fold"), (0, 0, 0, 2)))
        parts.append(Text())
    return Group(*parts)


def conflict_advice(conflicts: Sequence[MergeConflict], source: Path) -> str:
    """Return the line that a merge with conflicts ends with: what to do about them."""
    words = f"nothing is merged: {len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}."
    if any(conflict.here for conflict in conflicts):
        words += (
            " A training repeats bit for bit only on the same machine type and versions, so these "
            f"are other results of the same runs: keep {source} as a folder of its own, under "
            "another name, and compare the two with `skd diff`."
        )
    if any(conflict.is_being_trained for conflict in conflicts):
        words += " What is being trained here: merge again once it is done, or end it first."
    return words


def _counts(plan: MergePlan, kind: EntryKind, dry_run: bool) -> str:
    merged = sum(step.new for step in plan.steps if step.finished.kind == kind)
    completed = sum(
        bool(step.files) for step in plan.steps if step.finished.kind == kind and not step.new
    )
    refused = sum(found == kind for found, _, _ in plan.refused)
    parts = [
        f"{merged} {'would be ' * dry_run}merged",
        f"{plan.already_present[kind]} there already",
        f"{plan.unfinished[kind]} ignored (unfinished)",
    ]
    if completed:
        parts[1] += f" ({completed} of them {'would get' if dry_run else 'got'} missing files)"
    if refused:
        parts.append(f"{refused} refused")
    return f"{KIND_FOLDERS[kind]}: {', '.join(parts)}"


def _code(here: ResultSide, there: ResultSide) -> str:
    """Return whether the same code made both sides; nothing of cards, which do not record it."""
    both = here.environment and there.environment
    return code_text(here.environment, there.environment) if both else ""


def _sides(conflict: MergeConflict) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "last", "best"):
        grid.add_column(name, no_wrap=True)
    grid.add_column("on", overflow="fold")
    grid.add_column("torch", no_wrap=True)
    for name, side in (("here", conflict.here), ("there", conflict.there)):
        best = "" if side.best is None else f"{side.best:.2f} %"
        grid.add_row(*map(Text, (name, f"{side.last:.2f} %", best, side.device, side.torch)))
    return grid
