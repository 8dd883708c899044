"""Checks of the simplified teachers: has one collapsed, and has any moved?"""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import join_names, plural
from report.frames.cells import SKD
from report.frames.outcomes import collapsed_runs
from report.frames.study_frames import (
    DIAGNOSTIC_PREFIX,
    Frames,
    last_diagnostic_epochs,
)
from report.names import Names
from report.sanity.doubts import Doubt
from skd.study.expansion import Expansion

# KL divergence in nats of the softened from the simplified teacher. Below it, the simplifier has
# practically no effect.
UNCHANGED_BELOW = 0.001
MAX_LINES = 12


def collapsed_simplifiers(frames: Frames, names: Names) -> list[Doubt]:
    """Return the runs in which the simplified teacher lost its information about the classes."""
    runs = collapsed_runs(frames)
    if runs.empty:
        return []
    lines = []
    for run in runs.to_dict("records"):
        since = run["collapse_epoch"]
        since = "" if since is None or since != since else f", from epoch {int(since)}"
        pair = names.pair((run["teacher"], run["student"]))
        lines.append(
            f"{pair}, {names.method(run['method'])}, seed {run['seed']}{since}: "
            f"{run['collapse_reason']}"
        )
    if more := len(lines) - MAX_LINES:
        lines = [*lines[:MAX_LINES], f"and {more} more"] if more > 0 else lines
    these, measure = (
        ("This run is", "measures") if len(runs) == 1 else ("These runs are", "measure")
    )
    text = (
        f"In {plural(len(runs), 'run')} the simplified teacher collapsed: it lost its information "
        f"about the classes. {these} included in every mean, but {measure} the cost of a collapse, "
        "not the method."
    )
    return [Doubt("collapsed-simplifier", "caution", text, tuple(lines))]


def unmoved_simplifiers(frames: Frames, expansion: Expansion, names: Names) -> list[Doubt]:
    """Return the methods whose simplifier has not changed its teacher in any run.

    A simplifier that the sheet freezes is not meant to change it.
    """
    last = last_diagnostic_epochs(frames.epochs)
    if last.empty:
        return []
    largest = last.groupby("method")[f"{DIAGNOSTIC_PREFIX}kl_softened_simplified"].max()
    trained = [method for method in expansion.methods if _is_trained(expansion, method)]
    watched = [method for method in trained if method in largest.index]
    unmoved = [method for method in watched if largest[method] < UNCHANGED_BELOW]
    if not unmoved:
        return []
    everywhere = len(unmoved) == len(watched)
    listed = join_names([names.method(method) for method in unmoved])
    which = "No simplifier has" if everywhere else f"The simplifier of {listed} has not"
    text = (
        f"{which} changed its teacher by the last epoch (KL divergence from the softened teacher "
        f"below {UNCHANGED_BELOW:g} nats){_consequence(unmoved, names)}."
    )
    return [Doubt("unmoved-simplifier", "caution", text)]


def _consequence(unmoved: Sequence[str], names: Names) -> str:
    others = [names.method(method) for method in unmoved if method != SKD]
    parts = []
    if SKD in unmoved:
        parts.append(f"{names.method(SKD)} is the same as {names.method('kd')}")
    if others:
        parts.append(f"no gain of {_any_of(others)} is an effect of the simplifier")
    return f", so {', and '.join(parts)}"


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _is_trained(expansion: Expansion, method: str) -> bool:
    simplifiers = [cell.spec.method.simplifier for cell in expansion.cells if cell.method == method]
    return any(part and part.settings.get("trainable", True) for part in simplifiers)
