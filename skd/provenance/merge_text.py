"""The output of `skd merge`. Imports no torch."""

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
    """Return what was merged, or would be, as one line for runs and one for teachers."""
    lines = [_counts(plan, kind, dry_run) for kind in ("run", "teacher")]
    without_weights = [
        step.source for step in plan.steps if step.is_new and WEIGHTS not in step.source.files
    ]
    if teachers := [entry.entry.id for entry in without_weights if entry.kind == "teacher"]:
        lines.append(
            f"teachers without weights, which cannot be used for training: {', '.join(teachers)}"
        )
    if runs := sum(entry.kind == "run" for entry in without_weights):
        lines.append(f"runs with a record only, without weights: {runs}")
    return lines


def render_conflicts(conflicts: Sequence[MergeConflict], known: Iterable[ExpandedStudies]) -> Group:
    """Return all conflicts for a terminal: what differs, and the results of both sides.

    Args:
        conflicts: the conflicts.
        known: studies that may have names for the entries.
    """
    known = list(known)
    parts: list[RenderableType] = []
    for conflict in conflicts:
        names = [studies.label(conflict.kind, conflict.id) for studies in known]
        label = next((f" ({name})" for name in names if name), "")
        parts.append(Text.assemble((f"{conflict.kind} {conflict.id}", "bold"), label))
        parts.append(Padding(Text(conflict.why, overflow="fold"), (0, 0, 0, 2)))
        if conflict.here and conflict.there:
            parts.append(Padding(_sides(conflict), (0, 0, 0, 2)))
            if line := _code(conflict.here, conflict.there):
                parts.append(Padding(Text(line, overflow="fold"), (0, 0, 0, 2)))
        parts.append(Text())
    return Group(*parts)


def conflict_advice(conflicts: Sequence[MergeConflict], source: Path) -> str:
    """Return the last line of a merge with conflicts: what to do about them."""
    advice = f"nothing is merged: {len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}."
    if any(conflict.here for conflict in conflicts):
        advice += (
            " A training is bit-identical only on the same machine type and versions, so these are "
            f"other results of the same runs: keep {source} as a separate folder with another "
            "name, and compare the two with `skd diff`."
        )
    if any(conflict.is_being_trained for conflict in conflicts):
        advice += " Some runs are being trained here: merge again when they have ended."
    return advice


def _counts(plan: MergePlan, kind: EntryKind, dry_run: bool) -> str:
    steps = [step for step in plan.steps if step.source.kind == kind]
    merged = sum(step.is_new for step in steps)
    completed = sum(bool(step.files) for step in steps if not step.is_new)
    refused = sum(entry_kind == kind for entry_kind, _, _ in plan.refused)
    parts = [
        f"{merged} {'would be ' * dry_run}merged",
        f"{plan.already_present[kind]} already present",
        f"{plan.unfinished[kind]} ignored (unfinished)",
    ]
    if completed:
        parts[1] += f" ({completed} of them {'would get' if dry_run else 'got'} missing files)"
    if refused:
        parts.append(f"{refused} refused")
    return f"{KIND_FOLDERS[kind]}: {', '.join(parts)}"


def _code(here: ResultSide, there: ResultSide) -> str:
    """Return a line on whether the code of both sides is the same; empty for cards alone."""
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
